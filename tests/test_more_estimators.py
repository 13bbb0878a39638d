"""Estimators beyond the paper's, against NumPy and SciPy in float64."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from rdmdc import rates
from rdmdc.estimators import geometric_median as gm
from rdmdc.estimators import iterated_spectral_mean as iterated
from rdmdc.estimators import quantum_entropy_mean as entropy
from rdmdc.estimators import spectral_mean as spectral
from rdmdc.estimators import truncated_mean as truncated

B, N, D = 3, 40, 12


def generators():
    return [torch.Generator().manual_seed(c) for c in range(B)]


@pytest.fixture(scope="module")
def vectors():
    """Three classes of unequal spread; the first eight vectors of each are shifted."""
    drawn = torch.randn(B, N, D, generator=torch.Generator().manual_seed(5))
    made = drawn * torch.logspace(0.3, -0.5, D) * torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    made[:, :8] += torch.linspace(-1, 1, D)
    return made


def test_the_geometric_median_minimises_the_sum_of_distances(vectors):
    found = gm.geometric_median(vectors, generators(), gm.Options(iterations=100))
    assert found.kept is None
    for c in range(B):
        x = vectors[c].double().numpy()
        best = scipy.optimize.minimize(
            lambda m, x=x: np.linalg.norm(x - m, axis=1).sum(), x.mean(0), tol=1e-12
        )
        np.testing.assert_allclose(found.value[c].numpy(), best.x, atol=2e-3)


def test_the_geometric_median_may_be_one_of_the_vectors():
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
    found = gm.geometric_median(points, [torch.Generator()], gm.Options(iterations=50))
    torch.testing.assert_close(found.value, torch.zeros(1, 2))
    equal = gm.geometric_median(torch.ones(1, 4, 2), [torch.Generator()], gm.Options(iterations=5))
    assert torch.equal(equal.value, torch.ones(1, 2))


def test_far_vectors_hardly_move_the_geometric_median(vectors):
    moved = vectors.clone()
    moved[:, 0] += 1000
    before, after = (
        gm.geometric_median(v, generators(), gm.Options(iterations=200)).value
        for v in (vectors, moved)
    )
    assert (after - before).norm(dim=1).max() < 0.5
    assert (moved.mean(1) - vectors.mean(1)).norm(dim=1).min() > 20


def test_smoothing_does_not_grow_with_the_distance_of_far_vectors(vectors):
    """However far a third of the vectors lies, the rest holds the geometric median."""
    far = vectors.clone().double()
    far[:, : N // 3] = 1e9
    found = gm.geometric_median(far, generators(), gm.Options(iterations=300)).value
    clean = far[:, N // 3 :]
    assert ((found - clean.mean(1)).norm(dim=1) < clean.std(1).norm(dim=1)).all()


def filtered(x, drop, rounds):
    """Indices that the iterated filter keeps, by NumPy's eigenvectors of the covariance."""
    k, left = rates.count(drop, len(x)), np.arange(len(x))
    for number in range(rounds):
        own = x[left] - x[left].mean(0)
        v = np.linalg.eigh(own.T @ own)[1][:, -1]
        keep = len(x) - k * (number + 1) // rounds
        left = np.sort(left[np.argsort(np.abs(own @ v))[:keep]])
    return left


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_each_round_drops_along_the_top_direction_of_what_is_left(vectors, rounds):
    options = iterated.Options(drop="3/10", rounds=rounds, power_iterations=3000)
    found = iterated.iterated_spectral_mean(vectors, generators(), options)
    for c in range(B):
        left = filtered(vectors[c].double().numpy(), "3/10", rounds)
        assert found.kept[c].nonzero().squeeze(1).tolist() == left.tolist()
        torch.testing.assert_close(found.value[c], vectors[c, left].mean(0))


def test_one_round_is_mean_calibration(vectors):
    one = iterated.Options(drop="3/10", rounds=1, power_iterations=10)
    found = iterated.iterated_spectral_mean(vectors, generators(), one)
    plain = spectral.Options(drop="3/10", power_iterations=10)
    expected = spectral.spectral_mean(vectors, generators(), plain)
    assert torch.equal(found.kept, expected.kept)
    torch.testing.assert_close(found.value, expected.value)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_quantum_entropy_scores_are_quadratic_forms_of_the_matrix_exponential(vectors, alpha):
    centred = vectors - vectors.mean(1, keepdim=True)
    found = entropy.quantum_entropy_scores(centred, alpha).double()
    for c in range(B):
        x = centred[c].double().numpy()
        covariance = x.T @ x / len(x)
        weights = scipy.linalg.expm(alpha * covariance / np.linalg.eigvalsh(covariance)[-1])
        expected = np.einsum("nd,de,ne->n", x, weights, x) / np.exp(alpha)
        np.testing.assert_allclose(found[c].numpy(), expected, rtol=1e-4)


def test_quantum_entropy_lies_between_truncation_and_mean_calibration(vectors):
    def kept(alpha):
        options = entropy.Options(drop="1/5", alpha=alpha)
        return entropy.quantum_entropy_mean(vectors, generators(), options).kept

    far = truncated.truncated_mean(vectors, generators(), truncated.Drop(drop="1/5"))
    along = spectral.spectral_mean(
        vectors, generators(), spectral.Options(drop="1/5", power_iterations=300)
    )
    assert torch.equal(kept(0.0), far.kept)
    assert torch.equal(kept(1000.0), along.kept)


def test_equal_vectors_have_their_own_mean():
    equal = torch.ones(2, 10, 4)
    two = generators()[:2]
    for found in (
        entropy.quantum_entropy_mean(equal, two, entropy.Options(drop="1/5", alpha=4.0)),
        iterated.iterated_spectral_mean(
            equal, two, iterated.Options(drop="1/5", rounds=2, power_iterations=5)
        ),
    ):
        torch.testing.assert_close(found.value, torch.ones(2, 4))
        assert found.kept.sum(1).tolist() == [8, 8]
