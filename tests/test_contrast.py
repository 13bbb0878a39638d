"""The direction of contrast, against the generalised eigenproblem on explicit D × D matrices."""

import numpy as np
import pytest
import scipy.linalg
import torch

from rdmdc.contrast import ContrastError, top_contrast

RIDGE = 0.1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def natural(rows, features, seed):
    """Vectors with the same directions of large variance in every class, and their mean at zero."""
    mixing = torch.randn(features, features, generator=generator(99)) * torch.logspace(
        0, -2, features
    )
    drawn = torch.randn(rows, features, generator=generator(seed)) @ mixing
    return drawn - drawn.mean(0)


def planted(rows, features, poisons, seed=1):
    """A class whose first vectors are moved in a direction that no class has naturally."""
    vectors = natural(rows, features, seed)
    unusual = torch.nn.functional.normalize(torch.randn(features, generator=generator(98)), dim=0)
    vectors[:poisons] += 10 * unusual
    return vectors - vectors.mean(0)


def reference(centred, others, ridge):
    """Eigenvalues, descending, and vectors (D, D) by SciPy in float64."""
    x, o = centred.double().numpy(), others.double().numpy()
    own, theirs = x.T @ x / len(x), o.T @ o / len(o)
    regular = theirs + ridge * np.trace(theirs) / min(o.shape) * np.eye(o.shape[1])
    values, vectors = scipy.linalg.eigh(own, regular)
    return values[::-1], vectors[:, ::-1], regular


@pytest.mark.parametrize(
    ("rows", "others", "features"), [(90, 60, 120), (200, 150, 40), (30, 90, 64)]
)
def test_directions_are_the_generalised_eigenvectors(rows, others, features):
    centred, rest = planted(rows, features, rows // 10), natural(others, features, 2)
    found = top_contrast(centred, rest, RIDGE, 60, generator())
    values, vectors, regular = reference(centred, rest, RIDGE)
    np.testing.assert_allclose(found.ratios[:2], values[:2], rtol=1e-3)
    w = found.directions[:, 0].double().numpy()
    assert w @ regular @ w == pytest.approx(1, rel=1e-4)
    assert abs(w @ regular @ vectors[:, 0]) == pytest.approx(1, abs=1e-3)


def test_planted_vectors_lie_farthest_along_it_and_not_along_the_class_s_own_direction():
    centred, rest = planted(200, 64, 20), natural(300, 64, 2)
    found = top_contrast(centred, rest, RIDGE, 30, generator())
    along = (centred @ found.directions[:, 0]).abs()
    own = (centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]).abs()
    assert set(along.topk(20).indices.tolist()) == set(range(20))
    assert len(set(own.topk(20).indices.tolist()) & set(range(20))) < 10


def test_scaling_all_vectors_changes_no_projection():
    centred, rest = planted(100, 48, 10), natural(80, 48, 2)
    small, large = (
        top_contrast(s * centred, s * rest, RIDGE, 30, generator()) for s in (1e-3, 1e3)
    )
    torch.testing.assert_close(small.ratios, large.ratios, rtol=1e-4, atol=1e-5)
    projections = (1e-3 * centred @ small.directions[:, 0], 1e3 * centred @ large.directions[:, 0])
    torch.testing.assert_close(*(p.abs() for p in projections), rtol=1e-2, atol=1e-3)


def test_the_same_generator_gives_the_same_bits():
    centred, rest = planted(60, 32, 6), natural(50, 32, 2)
    one, two = (top_contrast(centred, rest, RIDGE, 5, generator(3)) for _ in range(2))
    assert torch.equal(one.directions, two.directions)
    assert torch.equal(one.ratios, two.ratios)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_class_of_few_vectors_has_finite_directions(rows):
    centred = natural(rows, 32, 1)
    found = top_contrast(centred, natural(50, 32, 2), RIDGE, 10, generator())
    assert torch.isfinite(found.directions).all()
    assert torch.isfinite(found.ratios).all()
    assert found.directions.shape == (32, rows)


def test_a_class_without_spread_has_ratio_zero():
    found = top_contrast(torch.zeros(10, 32), natural(50, 32, 2), RIDGE, 10, generator())
    assert found.ratios.abs().max() == 0
    assert torch.isfinite(found.directions).all()


@pytest.mark.parametrize("others", [torch.zeros(0, 32), torch.zeros(5, 32)])
def test_nothing_to_compare_with_is_an_error(others):
    with pytest.raises(ContrastError, match=f"the {len(others)} vectors of other classes"):
        top_contrast(natural(10, 32, 1), others, RIDGE, 10, generator())
