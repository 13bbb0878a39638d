"""Condensation against Alg. 3 as a textbook would write it, and what a panel promises."""

import dataclasses
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rdmdc import plugins
from rdmdc.condensers import matching_means as module
from rdmdc.condensers.dm import Options, dm
from rdmdc.condensers.task import Calibration, CleanCase, Task
from rdmdc.estimators.estimate import Estimate
from rdmdc.models import running
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.options import option
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, Normalisation, PoisonSet, RecordError, Screening
from rdmdc.training_data import TrainingData

STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
OPTIONS = Options(
    ipc=3,
    batch=10,
    iterations=3,
    learning_rate=20.0,
    momentum=0.5,
    initialisation="noise",
    log_every=1,
)
VALUES = {
    "drop": "3/10",
    "power_iterations": 300,
    "rounds": 2,
    "alpha": 4.0,
    "iterations": 30,
    "others": 20,
    "ridge": 0.1,
}
"""Options of every estimator, by name."""
ESTIMATORS = plugins.load("estimator").plugins


def calibration(name, **changed):
    """An estimator with its options."""
    plugin = ESTIMATORS[name]
    if plugin.options is None:
        return Calibration(plugin, None)
    names = [field.name for field in dataclasses.fields(plugin.options)]
    values = {field: (VALUES | changed)[field] for field in names}
    return Calibration(plugin, plugin.options(**values))


PANEL = {name: calibration(name) for name in ESTIMATORS}
"""A method for each estimator, of its name."""


@pytest.fixture(scope="module")
def run(train, network, quiet, never):
    """Condense with the tiny world's arguments, some of them changed."""

    def run(
        panel=PANEL,
        train=train,
        poisons=None,
        screening=None,
        seed=5,
        run=0,
        network=network,
        progress=quiet,
        **options,
    ):
        data = TrainingData(train, poisons, screening)
        task = Task(data, network, STRATEGY, panel, seed, run, "cpu")
        return dm(task, replace(OPTIONS, **options), progress, never)

    return run


def inputs_of(result):
    return {name: synthetic.inputs for name, (synthetic, _) in result.items()}


def poison(indices, labels, seed=0):
    """Images that no class has: squares of a chessboard, with a little noise."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 200
    noise = torch.randint(0, 40, (len(indices), 3, 8, 8), generator=generator("poison", seed))
    return PoisonSet(torch.tensor(indices), torch.tensor(labels), (board + noise).to(torch.uint8))


# --- against Alg. 3 --------------------------------------------------------------------------


def outermost(embeddings, scores):
    """Mean without the 3 of 10 with the largest scores."""
    return embeddings[np.argsort(scores)[:-3]].mean(0)


def truncated(r):
    return outermost(r, np.linalg.norm(r - r.mean(0), axis=1))


def calibrated(r):
    """Alg. 4, the covariance's eigenvector by numpy."""
    centred = r - r.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred / (len(r) - 1))
    return outermost(r, np.abs(centred @ vectors[:, -1]))


PLAIN = {
    "mean": lambda r: r.mean(0),
    "median": lambda r: np.median(r, axis=0),
    "trimmed_mean": lambda r: np.sort(r, axis=0)[1:-1].mean(0),  # k = 3, one a side
    "truncated_mean": truncated,
    "spectral_mean": calibrated,
}
"""The paper's estimators, of a minibatch (N, D) of one class in float64."""


def textbook(train, network, options, calibrate, seed, run):
    """Alg. 3 class by class, with torch's SGD: inputs, and the classes' losses by iteration."""
    m, classes = options.ipc, len(train.class_names)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    shape = (classes * m, *train.pixels.shape[1:])
    start = torch.randn(shape, generator=generator(seed, "condense", run, "start"))
    synthetic = start.requires_grad_()
    sgd = torch.optim.SGD([synthetic], lr=options.learning_rate, momentum=options.momentum)
    losses = []
    for number in range(options.iterations):
        purpose = (seed, "condense", run, number)
        weights = network.draw(generator(*purpose, "network"))
        drawn = draw(STRATEGY, classes, generator(*purpose, "augmentation"), shared=False)
        terms = []
        for c in range(classes):
            w_c = Draw((drawn.operations[c],), drawn.uniforms[c : c + 1])
            members = (train.labels == c).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator(*purpose, "batch", c))
            pixels = train.pixels[members[order[: options.batch]]]
            with torch.no_grad():
                images = augment(((pixels / 255 - mean) / std)[None], w_c)[0]
                real = network.embed(weights, images)
            wanted = torch.from_numpy(calibrate(real.double().numpy())).float()
            images = augment(synthetic[c * m : (c + 1) * m][None], w_c)[0]
            terms.append((network.embed(weights, images).mean(0) - wanted).square().sum())
        sgd.zero_grad()
        torch.stack(terms).sum().backward()
        sgd.step()
        losses.append([float(term.detach()) for term in terms])
    return synthetic.detach(), losses


@pytest.mark.parametrize(("iterations", "name"), [(1, "mean"), *((3, name) for name in PLAIN)])
def test_alg_3(run, train, network, name, iterations):
    options = replace(OPTIONS, iterations=iterations)
    poisons = poison([13, 15, 20], [1, 1, 1])
    made, trace = run(poisons=poisons, iterations=iterations)[name]
    expected, losses = textbook(poisons.apply(train), network, options, PLAIN[name], 5, 0)
    start = textbook(train, network, replace(options, iterations=0), PLAIN[name], 5, 0)[0]
    assert float((expected - start).abs().amax((1, 2, 3)).min()) > 0.05, "nothing has moved"
    torch.testing.assert_close(made.inputs, expected, rtol=0, atol=1e-5 * 3 ** (iterations - 1))
    assert trace.loss.tolist() == pytest.approx(np.ravel(losses).tolist(), rel=1e-4)


def test_the_set_is_sorted_by_class_and_carries_what_it_needs(run, train):
    made, _ = run()["mean"]
    assert made.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (made.class_names, made.normalisation) == (train.class_names, train.normalisation)
    assert made.inputs.shape == (9, 3, 8, 8)


def test_the_loss_falls(run):
    _, trace = run(iterations=60, learning_rate=50.0)["mean"]
    losses = trace.groupby("iteration").loss.sum()
    assert losses.iloc[-10:].mean() < 0.6 * losses.iloc[:10].mean()


# --- randomness ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PANEL)
def test_alone_is_as_in_a_panel_bit_for_bit(run, name):
    poisons = poison([13, 15, 20], [1, 1, 1])
    panel = run(poisons=poisons)
    for other in (PANEL, dict(reversed(PANEL.items()))):
        partner = {n: e for n, e in other.items() if n in (name, "mean", "random_mean")}
        assert torch.equal(run(partner, poisons=poisons)[name][0].inputs, panel[name][0].inputs)
    alone = run({name: PANEL[name]}, poisons=poisons)[name]
    assert torch.equal(alone[0].inputs, panel[name][0].inputs)
    pd.testing.assert_frame_equal(alone[1], panel[name][1], check_exact=True)


def test_alone_is_as_in_a_panel_bit_for_bit_compiled(run, compiled):
    wide = ConvNet(3, 8, 3, width=16, depth=2)
    panel = run(network=wide)
    for name in PANEL:
        alone = run({name: PANEL[name]}, network=wide)[name][0].inputs
        assert torch.equal(alone, panel[name][0].inputs)
    running.compiling(False, "cpu", None)
    plain = run(network=wide)["mean"][0].inputs
    assert not torch.equal(plain, panel["mean"][0].inputs)  # it did run compiled
    torch.testing.assert_close(plain, panel["mean"][0].inputs, rtol=1e-4, atol=1e-4)


def test_methods_differ_and_twins_do_not(run):
    twins = run({**PANEL, "again": PANEL["random_mean"]}, learning_rate=50.0)
    assert torch.equal(twins["again"][0].inputs, twins["random_mean"][0].inputs)
    sets = [twins[name][0].inputs for name in PANEL]
    for i, a in enumerate(sets):
        assert all(float((a - b).abs().max()) > 1e-3 for b in sets[:i])


def test_same_seed_same_bits_other_seed_or_run_other_bits(run):
    made = inputs_of(run())
    torch.manual_seed(8)
    again = inputs_of(run())
    others = [inputs_of(run(seed=6)), inputs_of(run(run=1))]
    for name in PANEL:
        assert torch.equal(made[name], again[name])
        assert all(not torch.equal(made[name], other[name]) for other in others)


def test_same_bits_on_two_threads(run):
    torch.set_num_threads(2)
    try:
        made, again = (inputs_of(run(iterations=1)) for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(made[name], again[name]) for name in PANEL)


def test_nothing_logged_changes_a_bit(run):
    often, seldom = inputs_of(run(log_every=1)), inputs_of(run(log_every=3))
    assert all(torch.equal(often[name], seldom[name]) for name in PANEL)


@pytest.mark.parametrize("real_block", [1, 20, 4096])
@pytest.mark.parametrize("gradient_chunk", [1, 7, 64])
def test_results_do_not_depend_on_blocks(run, quiet, monkeypatch, real_block, gradient_chunk):
    """Seven classes, in blocks of one, of two and of all."""
    labels = torch.arange(7).repeat_interleave(torch.arange(4, 11))
    pixels = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=generator("seven"))
    names = tuple("abcdefg")
    seven = LabelledImages(
        pixels.to(torch.uint8), labels, names, Normalisation((0.5,) * 3, (0.3,) * 3)
    )
    net = ConvNet(3, 8, 7, width=4, depth=2)
    poisons = poison([6, 40], [1, 6])
    panel = {name: PANEL[name] for name in ("mean", "random_mean", "contrastive_mean")}

    def made():
        return run(panel, train=seven, poisons=poisons, network=net, batch=4)

    whole = made()
    monkeypatch.setitem(module.REAL_BLOCK, "cpu", real_block)
    monkeypatch.setitem(running.GRADIENT_CHUNK, "cpu", gradient_chunk)
    for name, (synthetic, trace) in made().items():
        torch.testing.assert_close(synthetic.inputs, whole[name][0].inputs, rtol=0, atol=1e-5)
        pd.testing.assert_frame_equal(trace, whole[name][1], rtol=1e-4)


# --- poisons ---------------------------------------------------------------------------------


def test_poisons_are_laid_over_the_training_set(run, train):
    """As on the poisoned training set, and the training set is left alone."""
    poisons, before = poison([1, 5, 25, 13], [0, 0, 1, 1]), train.pixels.clone()
    laid, applied = run(poisons=poisons), run(train=poisons.apply(train))
    for name in PANEL:
        assert torch.equal(laid[name][0].inputs, applied[name][0].inputs)
    assert torch.equal(train.pixels, before)


def test_a_class_whose_images_are_all_replaced(run):
    """It gets another set; the others keep theirs, since their draws are the same, but for
    estimators that compare a class with the others."""
    clean, poisoned = run(), run(poisons=poison(range(12, 26), [1] * 14))
    for name in PANEL:
        moved = (clean[name][0].inputs - poisoned[name][0].inputs).abs().amax((1, 2, 3))
        assert float(moved[3:6].min()) > 0.01
        across = ESTIMATORS[name].facts["across_classes"]
        assert (float(moved[[0, 1, 2, 6, 7, 8]].max()) < 1e-5) == (not across)


@pytest.mark.parametrize(
    ("poisons", "fault"),
    [
        (poison([11], [1]), "label differs from the label of the image"),
        (poison([39], [2]), r"index is outside 0\.\.38"),
        (
            PoisonSet(
                torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
            ),
            r"poisons of shape \(3, 4, 4\), images of \(3, 8, 8\)",
        ),
    ],
)
def test_poisons_that_do_not_fit(run, poisons, fault):
    with pytest.raises(RecordError, match=fault):
        run(poisons=poisons)


# --- screening -------------------------------------------------------------------------------


def screening_of(train, left_out):
    kept = torch.ones(len(train.labels), dtype=torch.bool)
    kept[left_out] = False
    return Screening((~kept).double(), kept)


@pytest.mark.parametrize("initialisation", ["noise", "real"])
def test_a_screening_that_keeps_all_changes_no_bit(run, train, initialisation):
    poisons = poison([13, 15, 20], [1, 1, 1])
    everything = screening_of(train, [])
    plain = run(poisons=poisons, initialisation=initialisation)
    screened = run(poisons=poisons, screening=everything, initialisation=initialisation)
    for name in PANEL:
        assert torch.equal(plain[name][0].inputs, screened[name][0].inputs)
        pd.testing.assert_frame_equal(plain[name][1], screened[name][1], check_exact=True)


@pytest.mark.parametrize("initialisation", ["noise", "real"])
@pytest.mark.parametrize("names", [["mean"], ["contrastive_mean"], list(PANEL)], ids=len)
def test_a_left_out_image_is_never_drawn(run, train, initialisation, names):
    """Its pixels do not matter, alone and in a panel; those of a kept image do."""
    left_out = [1, 4, 12, 13, 25, 30]
    screening = screening_of(train, left_out)
    panel = {name: PANEL[name] for name in names}

    def made(poisons):
        return run(panel, poisons=poisons, screening=screening, initialisation=initialisation)

    options = {"poisons": None}, {"poisons": poison(left_out, train.labels[left_out].tolist())}
    clean, poisoned = (made(**changed) for changed in options)
    touched = made(poison([0, 14, 38], [0, 1, 2]))
    for name in names:
        assert torch.equal(clean[name][0].inputs, poisoned[name][0].inputs)
        assert (poisoned[name][1].poisons == 0).all()
        assert not torch.equal(clean[name][0].inputs, touched[name][0].inputs)


def test_a_screened_split_is_condensed_like_one_without_the_images(run, train):
    left_out = [1, 4, 12, 13, 25, 30]
    screening = screening_of(train, left_out)
    cut = replace(train, pixels=train.pixels[screening.kept], labels=train.labels[screening.kept])
    screened, smaller = run(screening=screening), run(train=cut)
    for name in PANEL:
        assert torch.equal(screened[name][0].inputs, smaller[name][0].inputs)


def test_a_batch_larger_than_what_a_screening_keeps(run, train):
    screening = screening_of(train, [12, 13, 14, 15, 16])
    with pytest.raises(RecordError, match="batch is 10, but class 'bee' has 9 images; lower it"):
        run(screening=screening)


def test_a_class_is_estimated_with_draws_of_its_own(run, monkeypatch):
    """By seed, run, iteration and class, whatever block of classes it is in."""
    seeds = []

    @plugins.estimator()
    def noting(vectors, generators, options):
        """Note the generators' seeds."""
        seeds.extend(g.initial_seed() for g in generators)
        return Estimate(vectors.mean(1), None)

    monkeypatch.setitem(module.REAL_BLOCK, "cpu", 20)
    run({"noting": Calibration(noting, None)}, run=2, iterations=2, log_every=9)
    expected = [(5, "condense", 2, number, "estimate", c) for number in range(2) for c in range(3)]
    assert seeds == [generator(*purpose).initial_seed() for purpose in expected]


# --- across classes --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SpyOptions:
    """Options of an estimator that notes what it is given."""

    others: int = option("rows", at_least=2)


def test_an_estimator_across_classes_is_given_rows_of_the_whole_minibatch(run, monkeypatch):
    """The same ones for all blocks of classes: each is a class's vector without its mean."""
    seen = []

    @plugins.estimator(SpyOptions, across_classes=True)
    def spy(vectors, generators, options, others, classes):
        """Note the arguments."""
        seen.append((vectors, others, list(classes)))
        return Estimate(vectors.mean(1), None)

    monkeypatch.setitem(module.REAL_BLOCK, "cpu", 20)  # two classes, then one
    made = run({"spy": Calibration(spy, SpyOptions(25)), "mean": PANEL["mean"]}, iterations=1)
    assert torch.equal(made["spy"][0].inputs, made["mean"][0].inputs)
    assert [classes for _, _, classes in seen] == [[0, 1], [2]]
    vectors = torch.cat([vectors for vectors, *_ in seen])
    centred = (vectors - vectors.mean(1, keepdim=True)).flatten(0, 1)
    for _, others, _ in seen:
        assert torch.equal(others.rows, seen[0][1].rows)
        nearest = (others.rows[:, None] - centred).norm(dim=2).min(1)
        assert nearest.values.max() < 1e-5
        assert len(set(nearest.indices.tolist())) == len(others.rows) == 25
        assert torch.equal(nearest.indices // 10, others.labels)
    assert set(seen[0][1].labels.tolist()) == {0, 1, 2}


def test_methods_that_compare_with_other_counts_do_not_meet(run):
    one, other = (calibration("contrastive_mean", others=count) for count in (9, 25))
    together = run({"one": one, "other": other})
    assert not torch.equal(together["one"][0].inputs, together["other"][0].inputs)
    for name, alone in (("one", one), ("other", other)):
        assert torch.equal(run({name: alone})[name][0].inputs, together[name][0].inputs)


# --- start -----------------------------------------------------------------------------------


def test_noise_is_standard_normal_in_normalised_space(run):
    made, trace = run(ipc=200, iterations=0)["mean"]
    assert abs(float(made.inputs.mean())) < 0.01
    assert abs(float(made.inputs.std()) - 1) < 0.01
    assert made.ipc == 200
    assert trace.empty


def test_real_starts_from_the_poisoned_split(run, train):
    """All bees are poisons, two ants are: distinct images of each class as poisoned."""
    poisons = poison([0, 7, *range(12, 26)], [0, 0, *[1] * 14])
    poisoned = poisons.apply(train)
    made, _ = run(poisons=poisons, initialisation="real", ipc=12, iterations=0)["mean"]
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    pixels = ((made.inputs * std + mean) * 255).round().to(torch.uint8)
    for c in range(3):
        own = {bytes(p) for p in poisoned.pixels[poisoned.labels == c].flatten(1).numpy()}
        used = {bytes(p) for p in pixels[c * 12 : (c + 1) * 12].flatten(1).numpy()}
        assert len(used) == 12
        assert used <= own


@pytest.mark.parametrize("initialisation", ["noise", "real"])
def test_starts_depend_on_seed_and_run_and_are_shared_by_the_panel(run, initialisation):
    def start(**changes):
        return inputs_of(run(initialisation=initialisation, iterations=0, **changes))

    first = start()
    assert all(torch.equal(first["mean"], other) for other in first.values())
    assert torch.equal(first["mean"], start(batch=4, momentum=0.0)["spectral_mean"])
    assert not torch.equal(first["mean"], start(run=1)["mean"])
    assert not torch.equal(first["mean"], start(seed=1)["mean"])


# --- the trace -------------------------------------------------------------------------------


def test_the_trace_has_a_row_per_logged_iteration_and_class(run):
    told = []
    made = run(iterations=8, log_every=3, progress=lambda *p: told.append(p[:2]))
    for _, trace in made.values():
        rows = list(zip(trace.iteration, trace["class"], strict=True))
        assert rows == [(i, c) for i in (0, 3, 6, 7) for c in range(3)]
        assert (trace.poisons == 0).all()
        assert trace[["recall", "precision", "deviation_before"]].isna().all(axis=None)
    assert told == [(i, 8) for i in range(1, 9)]


@pytest.fixture(scope="module")
def planted(run, train):
    """Two chessboards among twelve nearly equal ants, all of them in every minibatch."""
    noise = torch.randint(0, 9, train.pixels.shape, generator=generator("quiet"))
    calm = replace(train, pixels=(train.pixels[:1] // 2 + noise).to(torch.uint8))
    panel = {name: calibration(name, drop="1/3") for name in PANEL}
    return run(panel, train=calm, poisons=poison([4, 9], [0, 0]), batch=12)


@pytest.mark.parametrize(
    ("name", "recall", "precision", "kept"),
    [
        ("truncated_mean", 1, 1 / 2, 8),
        ("spectral_mean", 1, 1 / 2, 8),
        ("iterated_spectral_mean", 1, 1 / 2, 8),
        ("quantum_entropy_mean", 1, 1 / 2, 8),
        ("contrastive_mean", 1, 1 / 2, 8),
        ("mean", 0, np.nan, 12),
        ("median", np.nan, np.nan, -1),
        ("geometric_median", np.nan, np.nan, -1),
        ("trimmed_mean", np.nan, np.nan, -1),
    ],
)
def test_the_filter_meets_planted_outliers(planted, name, recall, precision, kept):
    trace = planted[name][1].set_index("class")
    ants = trace.loc[0]
    assert (ants.poisons == 2).all()
    assert (trace.kept == kept).all()
    np.testing.assert_array_equal(ants.recall, recall)
    np.testing.assert_array_equal(ants.precision, precision)
    assert (ants.deviation_before > 0).all()
    if recall == 1:
        assert (ants.deviation_after == 0).all()
    if name == "mean":
        np.testing.assert_allclose(ants.deviation_after, ants.deviation_before, rtol=1e-6)
        np.testing.assert_allclose(ants.shift_after, ants.shift_before, rtol=1e-6)
    else:
        assert (ants.shift_after < 0.5 * ants.shift_before).all()
    assert (trace.loc[[1, 2]].poisons == 0).all()
    assert trace.loc[[1, 2]].recall.isna().all()


def test_what_does_not_depend_on_the_method_is_the_same_for_all(planted):
    traces = [trace for _, trace in planted.values()]
    for column in ("poisons", "deviation_before", "shift_before"):
        assert all(trace[column].equals(traces[0][column]) for trace in traces)


# --- faults ----------------------------------------------------------------------------------


def test_a_batch_larger_than_a_class(run):
    fault = r"batch is 13, but class 'ant' has 12 images; lower it"
    with pytest.raises(RecordError, match=fault):
        run(batch=13)
    assert run(batch=12, iterations=1)


def test_more_real_starts_than_a_class_has(run):
    fault = r"ipc with a real start is 13, but class 'ant' has 12 images; lower it"
    with pytest.raises(RecordError, match=fault):
        run(initialisation="real", ipc=13)
    assert run(ipc=13, iterations=1)


def test_a_learning_rate_that_diverges(run):
    with pytest.raises(RecordError, match="NaN or infinity: lower the condenser's learning_rate"):
        run(learning_rate=1e40)


# --- beside a clean case ---------------------------------------------------------------------


def with_and_without(train, network, quiet, checkpoints):
    """One attacked case, condensed in full and beside its clean case; class 1 holds poisons."""
    data, clean = TrainingData(train, poison(range(12, 16), [1] * 4)), TrainingData(train)
    whole = Task(clean, network, STRATEGY, PANEL, 5, 0, "cpu")
    case = CleanCase(data.same_classes(clean), dm(whole, OPTIONS, quiet, checkpoints))
    plain = replace(whole, data=data)
    tasks = (plain, replace(plain, clean=case))
    return [dm(task, OPTIONS, quiet, checkpoints) for task in tasks]


def assert_equal(plain, beside):
    for name, (synthetic, trace) in plain.items():
        found, rows = beside[name]
        assert torch.equal(synthetic.inputs, found.inputs), name
        assert torch.equal(synthetic.labels, found.labels)
        pd.testing.assert_frame_equal(trace, rows)


def test_beside_a_clean_case_the_bits_are_the_same(train, network, quiet, never):
    assert_equal(*with_and_without(train, network, quiet, never))


def test_beside_a_clean_case_the_bits_are_the_same_compiled(train, quiet, never, compiled):
    assert_equal(*with_and_without(train, ConvNet(3, 8, 3, 16, 2), quiet, never))


def test_only_what_an_attack_changes_is_condensed_beside_a_clean_case(train, network):
    poisons = poison(range(12, 16), [1] * 4)
    data, clean = TrainingData(train, poisons), TrainingData(train)
    assert data.same_classes(clean) == {0, 2}
    kept = torch.ones(len(train.labels), dtype=torch.bool)
    kept[3] = False
    screened = TrainingData(
        train, poisons, Screening(torch.zeros(len(kept), dtype=torch.float64), kept)
    )
    assert screened.same_classes(clean) == {2}
    methods = {name: calibration(name) for name in ("mean", "contrastive_mean")}
    task = Task(data, network, STRATEGY, methods, 5, 0, "cpu", CleanCase(frozenset({0, 2}), {}))
    assert task.classes_of("mean") == [1]
    assert task.classes_of("contrastive_mean") == [0, 1, 2]
