"""The contrastive mean, against SciPy's generalised eigenvectors in float64."""

import numpy as np
import pytest
import scipy.linalg
import torch

from rdmdc import rates
from rdmdc.contrast import ContrastError
from rdmdc.estimators.contrastive_mean import Options, contrastive_mean
from rdmdc.estimators.estimate import Others

OPTIONS = Options(drop="1/5", others=120, ridge=0.1, power_iterations=60)
CLASSES, N, D = 4, 50, 30


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def vectors():
    """Classes with common directions of large variance; the third one has ten outliers."""
    drawn = torch.randn(CLASSES, N, D, generator=generators(1)[0])
    made = drawn * torch.logspace(1, -1, D) + torch.arange(CLASSES)[:, None, None]
    made[2, :10] += 10 * torch.nn.functional.one_hot(torch.tensor(D - 1), D)
    return made


@pytest.fixture(scope="module")
def others(vectors):
    rows = (vectors - vectors.mean(1, keepdim=True)).flatten(0, 1)
    labels = torch.arange(CLASSES).repeat_interleave(N)
    chosen = torch.randperm(len(rows), generator=generators(2)[0])[: OPTIONS.others]
    return Others(rows[chosen], labels[chosen])


def reference(own, rows):
    """The mean in float64 without the highest scores, and which are kept."""
    x, o = own.double().numpy(), rows.double().numpy()
    centred = x - x.mean(0)
    theirs = o.T @ o / len(o)
    regular = theirs + OPTIONS.ridge * np.trace(theirs) / min(o.shape) * np.eye(D)
    w = scipy.linalg.eigh(centred.T @ centred / len(x), regular)[1][:, -1]
    k = rates.count(OPTIONS.drop, len(x))
    kept = np.argsort(np.abs(centred @ w))[: len(x) - k]
    return x[kept].mean(0), np.isin(np.arange(len(x)), kept)


def test_it_is_the_mean_of_what_scipy_keeps(vectors, others):
    found = contrastive_mean(vectors, generators(*range(CLASSES)), OPTIONS, others, range(CLASSES))
    for c in range(CLASSES):
        value, kept = reference(vectors[c], others.rows[others.labels != c])
        np.testing.assert_array_equal(found.kept[c].numpy(), kept)
        np.testing.assert_allclose(found.value[c].numpy(), value, rtol=1e-4, atol=1e-4)


def test_outliers_in_a_direction_of_their_own_are_dropped(vectors, others):
    found = contrastive_mean(vectors, generators(*range(CLASSES)), OPTIONS, others, range(CLASSES))
    assert not found.kept[2, :10].any()


def test_a_class_alone_gets_what_it_gets_beside_others(vectors, others):
    beside = contrastive_mean(vectors, generators(0, 1, 2, 3), OPTIONS, others, range(CLASSES))
    alone = contrastive_mean(vectors[2:3], generators(2), OPTIONS, others, [2])
    assert torch.equal(alone.kept[0], beside.kept[2])
    assert torch.equal(alone.value[0], beside.value[2])


def test_scaling_all_vectors_keeps_the_same(vectors, others):
    before = contrastive_mean(vectors, generators(0, 1, 2, 3), OPTIONS, others, range(CLASSES))
    scaled = Others(100 * others.rows, others.labels)
    after = contrastive_mean(100 * vectors, generators(0, 1, 2, 3), OPTIONS, scaled, range(CLASSES))
    assert torch.equal(before.kept, after.kept)


def test_one_class_has_nothing_to_be_compared_with(vectors):
    own = (vectors[:1] - vectors[:1].mean(1, keepdim=True))[0]
    with pytest.raises(ContrastError, match="the 0 vectors of other classes"):
        lone = Others(own, torch.zeros(N, dtype=torch.int64))
        contrastive_mean(vectors[:1], generators(0), OPTIONS, lone, [0])
