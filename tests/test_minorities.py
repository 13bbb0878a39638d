"""Small groups apart from the rest: known groups, known splits, and clouds that have none."""

import numpy as np
import pytest
import torch

from rdmdc.screens.minorities import minorities, otsu, skewed_directions, whiten


def cloud(n, q, seed=0):
    return torch.randn(n, q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_group(n, q, size, distance, seed=0):
    """A Gaussian cloud whose first points form a tight group to one side of a random direction."""
    points = cloud(n, q, seed)
    direction = torch.nn.functional.normalize(cloud(1, q, seed + 1), dim=1)
    points[:size] = 0.3 * points[:size] + distance * direction
    return points


@pytest.mark.parametrize(("size", "distance"), [(10, 20), (40, 10), (80, 10)])
def test_a_tight_group_is_found_whatever_its_size(size, distance):
    points = with_group(400, 5, size, distance)
    found = minorities(points, 4, 160, 1)[0]
    assert set(found.members.tolist()) == set(range(size))
    assert found.separation > 0.85


def test_two_groups_are_found_one_after_the_other():
    points = with_group(400, 5, 40, 14)
    points[100:120] = 0.2 * cloud(20, 5, 7) + 14 * torch.nn.functional.normalize(
        cloud(1, 5, 8), dim=1
    )
    first, second = minorities(points, 4, 120, 2)
    groups = {frozenset(range(40)), frozenset(range(100, 120))}
    assert {frozenset(first.members.tolist()), frozenset(second.members.tolist())} == groups
    assert min(first.separation, second.separation) > 0.85


def test_members_of_the_group_before_are_not_beyond_the_next_one():
    points = with_group(400, 5, 40, 14)
    direction = torch.nn.functional.normalize(points[:40].mean(0, keepdim=True), dim=1)
    points[100:120] = 0.2 * cloud(20, 5, 7) + 40 * direction  # farther out the same way
    first, second = minorities(points, 4, 120, 2)
    assert set(first.members.tolist()) == set(range(100, 120))
    assert (second.position[first.members] > 2).all()
    assert second.beyond(3.5).nonzero().squeeze(1).tolist() == list(range(40))
    assert set(first.beyond(3.5).nonzero().squeeze(1).tolist()) >= set(range(100, 120))


@pytest.mark.parametrize("seed", range(5))
def test_a_gaussian_has_no_separate_group(seed):
    assert all(found.separation < 0.75 for found in minorities(cloud(400, 5, seed), 4, 120, 3))


def test_one_far_point_is_no_group():
    points = cloud(400, 5)
    points[0] = 100
    assert minorities(points, 4, 120, 1)[0].separation < 0.8


def test_positions_are_zero_at_the_rest_s_mean_and_one_at_the_group_s():
    points = with_group(200, 4, 20, 9)
    found = minorities(points, 4, 60, 1)[0]
    rest = torch.ones(200, dtype=torch.bool)
    rest[found.members] = False
    assert float(found.position[found.members].mean()) == pytest.approx(1)
    assert float(found.position[rest].mean()) == pytest.approx(0, abs=1e-12)
    assert found.spread == pytest.approx(float(found.position[rest].std(correction=0)))


@pytest.mark.parametrize(("smallest", "largest"), [(1, 49), (5, 20), (10, 10)])
def test_the_split_is_the_best_of_all_splits(smallest, largest):
    values = np.sort(np.concatenate([np.random.default_rng(0).normal(size=40), np.full(10, 2.5)]))
    shares = {}
    for size in range(smallest, largest + 1):
        low, high = values[:-size], values[-size:]
        within = (low.var() * len(low) + high.var() * size) / len(values)
        shares[size] = 1 - within / values.var()
    best = max(shares, key=shares.get)
    separation, size = otsu(torch.from_numpy(values), smallest, largest)
    assert size == best
    assert separation == pytest.approx(shares[best])


def test_components_are_white_and_those_of_the_covariance():
    points = cloud(300, 6) * torch.logspace(1, -1, 6, dtype=torch.float64) + 3
    mean, matrix = whiten(points, 3)
    white = (points - mean) @ matrix
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(white.T @ white / 300, identity, rtol=1e-6, atol=1e-6)
    values, axes = np.linalg.eigh(np.cov(points.T.numpy(), bias=True))
    cosines = np.abs(axes[:, ::-1][:, :3].T @ torch.nn.functional.normalize(matrix, dim=0).numpy())
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-6)
    assert values[-1] == pytest.approx(float(1 / matrix[:, 0].square().sum()))


def test_directions_are_fixed_points_of_unit_length():
    white = with_group(500, 4, 50, 8)
    mean, matrix = whiten(white, 4)
    white = (white - mean) @ matrix
    directions = skewed_directions(white)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(8, dtype=torch.float64))
    skewness = (white @ directions).clamp(-4, 4).pow(3).mean(0)
    grid = torch.nn.functional.normalize(cloud(4, 4000, 3), dim=0)
    assert skewness.max() > (white @ grid).clamp(-4, 4).pow(3).mean(0).max() - 1e-3


@pytest.mark.parametrize("points", [torch.zeros(20, 3), torch.zeros(1, 3), torch.zeros(0, 3)])
def test_equal_or_no_points_have_no_minority(points):
    assert minorities(points.double(), 1, 5, 2) == []
