"""Estimators against float64 loops and numpy.linalg.eigh, and the properties they promise."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdmdc import plugins
from rdmdc.estimators.estimate import Others
from rdmdc.estimators.spectral_mean import top_direction
from rdmdc.randomness import generator
from rdmdc.rates import RateError

VALUES = {
    "drop": "3/10",
    "power_iterations": 200,
    "rounds": 2,
    "alpha": 4.0,
    "iterations": 300,
    "others": 60,
    "ridge": 0.1,
}
"""Options of every estimator, by name."""
ESTIMATORS = plugins.load("estimator").plugins


def options_of(name, **changed):
    """The options of an estimator, None where it has none; what it has not is not changed."""
    options = ESTIMATORS[name].options
    if options is None:
        return None
    names = [field.name for field in dataclasses.fields(options)]
    return options(**{field: (VALUES | changed)[field] for field in names})


FILTERS = [name for name in ESTIMATORS if hasattr(options_of(name), "drop")]
WHOLE = [name for name in FILTERS if name != "trimmed_mean"]
"""Those that leave whole samples out."""
SHAPES = [(1, 100, 8), (3, 64, 20), (4, 7, 3), (2, 256, 100), (2, 5, 30)]
BIG = {"max_examples": 60, "deadline": None}


def draws(classes, *purpose):
    return [generator("test", *purpose, c) for c in range(classes)]


def apply(name, vectors, generators=None, classes=None, **changed):
    """An estimator's estimate; what is compared across classes are Gaussians of other classes."""
    arguments = [vectors, generators or draws(len(vectors)), options_of(name, **changed)]
    if ESTIMATORS[name].facts["across_classes"]:
        rows = torch.randn(90, vectors.shape[2], generator=generator("others"))
        arguments.append(Others(rows.to(vectors), torch.arange(90) % 9 + 100))
        arguments.append(range(len(vectors)) if classes is None else classes)
    return ESTIMATORS[name](*arguments)


def spiked(classes, n, d, seed=0, dtype=torch.float32):
    """Gaussians off the origin whose largest spread is thrice any other: the power method ends."""
    numbers = np.random.default_rng(seed)
    basis = np.linalg.qr(numbers.normal(size=(classes, d, d)))[0]
    scales = np.r_[3, np.linspace(1, 0.2, d - 1)]
    noise = numbers.normal(size=(classes, n, d)) * scales @ basis.transpose(0, 2, 1)
    return torch.tensor(noise + numbers.normal(size=(classes, 1, d)) * 5, dtype=dtype)


# --- references: float64, one class, loops ---------------------------------------------------


def total_mean(samples):
    total = np.zeros(samples.shape[1])
    for sample in samples:
        total += sample
    return total / len(samples)


def leading(samples):
    """The covariance's top eigenvector by eigh."""
    centred = samples - total_mean(samples)
    covariance = sum(np.outer(r, r) for r in centred) / (len(samples) - 1)
    return np.linalg.eigh(covariance)[1][:, -1]


def distances(samples):
    centre = total_mean(samples)
    return np.array([np.sqrt(((r - centre) ** 2).sum()) for r in samples])


def projections(samples):
    centre, v = total_mean(samples), leading(samples)
    return np.array([abs((r - centre) @ v) for r in samples])


def without_extremes(samples, side):
    columns = (sorted(samples[:, j])[side : len(samples) - side] for j in range(samples.shape[1]))
    return np.array([sum(column) / len(column) for column in columns])


def share(n):
    return -(-3 * n // 10)  # ⌈3/10 · n⌉


def assert_relative(value, expected):
    assert np.linalg.norm(value.double().numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


# --- against the references ------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mean", total_mean),
        ("median", lambda samples: np.median(samples, axis=0)),
        ("trimmed_mean", lambda samples: without_extremes(samples, share(len(samples)) // 2)),
    ],
)
def test_aggregates(name, reference, shape):
    embeddings = spiked(*shape)
    for value, samples in zip(apply(name, embeddings).value, embeddings.double(), strict=True):
        expected = reference(samples.numpy())
        assert_relative(value, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "scored"), [("truncated_mean", distances), ("spectral_mean", projections)]
)
def test_filters(name, scored, shape):
    """The kept sets are equal outside a margin of the scores, the aggregates given those sets."""
    embeddings = spiked(*shape)
    estimate = apply(name, embeddings)
    n, k = shape[1], share(shape[1])
    for value, kept, samples in zip(
        estimate.value, estimate.kept.numpy(), embeddings.double().numpy(), strict=True
    ):
        scores = scored(samples)
        threshold = (np.sort(scores)[n - k - 1] + np.sort(scores)[n - k]) / 2
        clear = abs(scores - threshold) > 1e-5 * threshold
        assert clear.sum() >= n - 2
        assert np.array_equal(kept[clear], scores[clear] < threshold)
        assert kept.sum() == n - k
        expected = total_mean(samples[kept])
        assert_relative(value, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_top_direction_is_eighs(shape):
    centred = spiked(*shape, dtype=torch.float64)
    centred -= centred.mean(1, keepdim=True)
    for v, samples in zip(top_direction(centred, draws(shape[0]), 200), centred, strict=True):
        assert abs(float(v.norm()) - 1) < 1e-12
        assert abs(v.numpy() @ leading(samples.numpy())) > 1 - 1e-10


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_top_direction_is_algorithm_5(iterations):
    """Unconverged, so that the number of steps counts; with the covariance formed, from N(0, I)."""
    centred = spiked(2, 40, 6, dtype=torch.float64)
    centred -= centred.mean(1, keepdim=True)
    made = top_direction(centred, draws(2, "five"), iterations)
    for c, samples in enumerate(centred.numpy()):
        v = torch.randn(6, generator=draws(2, "five")[c]).double().numpy()
        for _ in range(iterations):
            v = np.cov(samples.T) @ v
            v = v / np.linalg.norm(v)
        np.testing.assert_allclose(made[c], v, atol=1e-12)


def test_random_mean_drops_each_equally_often():
    embeddings = spiked(1, 20, 3).expand(3000, 20, 3)
    estimate = apply("random_mean", embeddings)
    assert estimate.kept.sum(1).eq(14).all()
    assert (estimate.kept.double().mean(0) - 0.7).abs().max() < 5 * np.sqrt(0.21 / 3000)
    expected = torch.stack([r[k].mean(0) for r, k in zip(embeddings, estimate.kept, strict=True)])
    torch.testing.assert_close(estimate.value, expected)


@pytest.mark.parametrize("n", [4, 5, 256])
def test_median_is_numpys(n):
    embeddings = spiked(2, n, 9)
    assert np.array_equal(apply("median", embeddings).value, np.median(embeddings.numpy(), axis=1))
    lower = embeddings.median(1).values
    assert torch.equal(apply("median", embeddings).value, lower) == bool(n % 2)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_kept_says_what_was_averaged(name):
    """Whole samples, or None where no whole sample is kept; the mean keeps all."""
    embeddings = spiked(2, 100, 4)
    estimate = apply(name, embeddings)
    if name in ("median", "trimmed_mean", "geometric_median"):
        assert estimate.kept is None
        return
    assert estimate.kept.dtype == torch.bool
    assert estimate.kept.sum(1).tolist() == [70 if name in WHOLE else 100] * 2
    for value, kept, samples in zip(estimate.value, estimate.kept, embeddings, strict=True):
        torch.testing.assert_close(value, samples[kept].mean(0))


# --- properties ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_batched_is_one_by_one(name, dtype):
    """Also far from convergence, where each class's own start counts."""
    embeddings = spiked(5, 96, 40, dtype=dtype)
    together = apply(name, embeddings, power_iterations=2)
    assert together.value.dtype == dtype
    for c in range(5):
        alone = apply(name, embeddings[c : c + 1], draws(5)[c : c + 1], [c], power_iterations=2)
        torch.testing.assert_close(alone.value[0], together.value[c], rtol=1e-6, atol=1e-6)
        if together.kept is not None:
            assert torch.equal(alone.kept[0], together.kept[c])


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "random_mean"])
@settings(**BIG)
@given(st.integers(3, 30), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_order_of_samples_does_not_matter(name, n, d, seed):
    """From three on: two samples tie, and ties are told apart by their order alone."""
    embeddings = spiked(2, n, d, seed, torch.float64)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    one, other = apply(name, embeddings), apply(name, embeddings[:, order])
    torch.testing.assert_close(one.value, other.value, rtol=1e-6, atol=1e-6)
    if one.kept is not None:
        assert torch.equal(one.kept[:, order], other.kept)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(**BIG)
@given(st.integers(3, 12), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_estimate_is_inside_the_samples_and_moves_with_them(name, n, d, seed, shift):
    embeddings = torch.tensor(np.random.default_rng(seed).normal(size=(1, n, d)))
    value = apply(name, embeddings).value
    assert (value >= embeddings.amin(1) - 1e-9).all()
    assert (value <= embeddings.amax(1) + 1e-9).all()
    moved = apply(name, embeddings + shift).value
    torch.testing.assert_close(moved, value + shift, rtol=1e-9, atol=1e-9)


BREAKDOWN = {
    "mean": (0, 1),
    "median": (49, 50),
    "geometric_median": (40, 51),
    "trimmed_mean": (15, 16),
    "random_mean": (0, 31),
    "truncated_mean": (30, 31),
    "spectral_mean": (30, 31),
    "iterated_spectral_mean": (30, 31),
    "quantum_entropy_mean": (30, 31),
    "contrastive_mean": (30, 31),
}
"""How many outliers of 100 an estimator survives, and how many it does not."""


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("far", [1e3, 1e9, -1e9])
def test_breakdown(name, far):
    """So many outliers at one place leave the estimate among the rest; more do not."""

    def polluted(count):
        embeddings = spiked(2, 100, 5, dtype=torch.float64)
        clean = embeddings[:, count:].clone()
        embeddings[:, :count] = far
        value = apply(name, embeddings).value
        inside = (value >= clean.amin(1)) & (value <= clean.amax(1))
        return bool(inside.all()), float(value.abs().max())

    survived, fatal = BREAKDOWN[name]
    assert polluted(survived)[0]
    inside, size = polluted(fatal)
    assert not inside
    assert size >= abs(far) / 100


@pytest.mark.parametrize("name", FILTERS)
@settings(**BIG)
@given(
    st.integers(5, 40), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(1e3, 1e8), st.data()
)
def test_few_far_outliers_are_survived(name, n, d, seed, far, data):
    most = {"trimmed_mean": share(n) // 2, "random_mean": 0}.get(name, share(n))
    count = data.draw(st.integers(0, most))
    numbers = np.random.default_rng(seed)
    clean = torch.tensor(numbers.uniform(-1, 1, size=(1, n - count, d)))
    outliers = torch.tensor(far * np.sign(numbers.normal(size=d))).expand(1, count, d)
    estimate = apply(name, torch.cat([outliers, clean], 1))
    assert estimate.value.abs().max() <= 1 + 1e-9
    if name in WHOLE and name != "random_mean":
        assert not estimate.kept[0, :count].any()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_identical_embeddings(name, value):
    """No spread, no top direction: still the common value."""
    embeddings = torch.full((2, 30, 8), value)
    estimate = apply(name, embeddings)
    torch.testing.assert_close(estimate.value, embeddings[:, 0], rtol=1e-6, atol=0)
    if estimate.kept is not None:
        assert estimate.kept.sum(1).tolist() == [21 if name in WHOLE else 30] * 2


def test_no_spread_has_no_direction_and_ties_drop_the_earlier():
    assert top_direction(torch.zeros(2, 6, 3), draws(2), 4).eq(0).all()
    kept = apply("spectral_mean", torch.zeros(1, 6, 3)).kept
    assert kept.tolist() == [[False, False, True, True, True, True]]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("drop", "n"), [("1", 10), ("999/1000", 100), ("1/2", 1)])
def test_nothing_left(name, drop, n):
    with pytest.raises(RateError, match=f"drop {drop} takes {n} of a batch of {n}"):
        apply(name, spiked(1, n, 3), drop=drop)


@pytest.mark.parametrize(("n", "k"), [(100, 30), (256, 77)])
def test_k_is_exact(n, k):
    embeddings = spiked(1, n, 3)
    for name in WHOLE:
        assert int((~apply(name, embeddings).kept).sum()) == k
    expected = without_extremes(embeddings[0].double().numpy(), k // 2)
    np.testing.assert_allclose(apply("trimmed_mean", embeddings).value[0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", FILTERS)
def test_dropping_nothing_is_the_mean(name):
    embeddings = spiked(2, 50, 6)
    value = apply(name, embeddings, drop="0").value
    torch.testing.assert_close(value, embeddings.mean(1), rtol=1e-5, atol=1e-6)


# --- Lemma 4.1 -------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [False, True], ids=["apart", "hiding"])
@pytest.mark.parametrize(
    ("eps", "drop", "alpha", "d"),
    [
        (0.1, "3/10", 4.7, 40),
        (0.1, "3/10", 20, 100),
        (0.05, "3/20", 8, 100),
        (0.02, "3/50", 4.7, 60),
    ],
)
def test_lemma_4_1(eps, drop, alpha, d, hidden):
    """What a 3ε drop leaves of the poisoned deviation is at most ε²√D; the plain mean's is more.

    Σ ≤ I, ‖μ_D − μ_B‖² = α / ε as assumed, μ_D of length √D. Hiding, the share ε / α of poisons
    that Σ_B ≤ I allows lies at μ_D itself: no filter sees them, and they are the bound's Θ(ε²√D).
    """
    n = int(20 * d / eps / 5)  # ≥ 20 D, and enough poisons to count
    poisons = round(eps * n)
    numbers = np.random.default_rng(d)
    away = np.linalg.qr(numbers.normal(size=(d, 1)))[0][:, 0] * np.sqrt(alpha / eps)
    samples = 1 + numbers.normal(size=(n, d)) * np.linspace(0.5, 1, d)
    hiding = int(poisons * eps / alpha) if hidden else 0
    assert bool(hiding) == hidden
    samples[hiding:poisons] = 1 + away + 0.5 * (samples[hiding:poisons] - 1)
    embeddings = torch.tensor(samples[None], dtype=torch.float32)

    def left(name):
        kept = apply(name, embeddings, drop=drop).kept[0].numpy()
        of_poisons = samples[:poisons][kept[:poisons]].sum(0) / kept.sum()
        return np.linalg.norm(of_poisons), kept[:poisons].sum()

    bound = eps**2 * np.sqrt(d)
    deviation, caught_not = left("spectral_mean")
    assert deviation <= bound
    assert caught_not <= hiding + 0.01 * poisons
    assert left("mean")[0] > eps * np.sqrt(d) > bound
    assert left("random_mean")[0] > bound


def test_without_a_compiler_sorting_is_torch_s(monkeypatch):
    """A network without kernels runs "compiled" where no kernels can be compiled at all."""
    from rdmdc.estimators.sorting import sort_samples
    from rdmdc.models import running
    from rdmdc.models.native import library
    from rdmdc.networks.mlp import MLP

    monkeypatch.setenv("CC", "no-such-compiler")
    library.library.cache_clear()
    assert running.compiling(True, "cpu", MLP(3, 8, 2, 16)) is None
    values = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    try:
        assert torch.equal(sort_samples(values), values.sort(dim=1).values)
    finally:
        running.compiling(False, "cpu", None)
        library.library.cache_clear()
