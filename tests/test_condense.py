"""Condensation against Alg. 3 as a textbook would write it, and what a panel promises."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rdmdc.condensers import dm as module
from rdmdc.models import running as networks
from rdmdc.models.native import convnet as native
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.condensers.dm import Condensation, condense
from rdmdc.estimators.means import ESTIMATORS
from rdmdc.models.running import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, Normalisation, PoisonSet, RecordError

STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
OPTIONS = Condensation(
    ipc=3,
    batch=10,
    iterations=3,
    learning_rate=20.0,
    momentum=0.5,
    initialisation="noise",
    log_every=1,
)
DROP = {"drop": "3/10"}
PANEL = {
    "dm": {"function": "mean"},
    "middle": {"function": "median"},
    "trimmed": {"function": "trimmed_mean", **DROP},
    "truncated": {"function": "truncated_mean", **DROP},
    "rdm_dc": {"function": "spectral_mean", "power_iterations": 300, **DROP},
    "control": {"function": "random_mean", **DROP},
}


@pytest.fixture(scope="module")
def run(train, network, quiet, never):
    """Condense with the tiny world's arguments, some of them changed."""

    def run(panel=PANEL, train=train, poisons=None, seed=5, run=0, network=network, **options):
        chosen = replace(OPTIONS, **options)
        return condense(
            train, poisons, network, STRATEGY, chosen, panel, seed, run, "cpu", quiet, never
        )

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
    "dm": lambda r: r.mean(0),
    "middle": lambda r: np.median(r, axis=0),
    "trimmed": lambda r: np.sort(r, axis=0)[1:-1].mean(0),  # k = 3, one a side
    "truncated": truncated,
    "rdm_dc": calibrated,
}


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


@pytest.mark.parametrize(
    ("iterations", "name"), [(1, "dm"), (3, "dm"), *((3, name) for name in PLAIN if name != "dm")]
)
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
    made, _ = run()["dm"]
    assert made.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (made.class_names, made.normalisation) == (train.class_names, train.normalisation)
    assert made.inputs.shape == (9, 3, 8, 8)


def test_the_loss_falls(run):
    _, trace = run(iterations=60, learning_rate=50.0)["dm"]
    losses = trace.groupby("iteration").loss.sum()
    assert losses.iloc[-10:].mean() < 0.6 * losses.iloc[:10].mean()


# --- randomness ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PANEL)
def test_alone_is_as_in_a_panel_bit_for_bit(run, name):
    poisons = poison([13, 15, 20], [1, 1, 1])
    panel = run(poisons=poisons)
    for other in (PANEL, dict(reversed(PANEL.items()))):
        partner = {n: e for n, e in other.items() if n in (name, "dm", "control")}
        assert torch.equal(run(partner, poisons=poisons)[name][0].inputs, panel[name][0].inputs)
    alone = run({name: PANEL[name]}, poisons=poisons)[name]
    assert torch.equal(alone[0].inputs, panel[name][0].inputs)
    pd.testing.assert_frame_equal(alone[1], panel[name][1], check_exact=True)


def test_alone_is_as_in_a_panel_bit_for_bit_compiled(run, compiled):
    wide = ConvNet(3, 8, 3, width=16, depth=2)
    panel = run(network=wide)
    for name in PANEL:
        assert torch.equal(
            run({name: PANEL[name]}, network=wide)[name][0].inputs, panel[name][0].inputs
        )
    native.running = False
    plain = run(network=wide)
    assert not torch.equal(plain["dm"][0].inputs, panel["dm"][0].inputs)  # it did run compiled
    torch.testing.assert_close(plain["dm"][0].inputs, panel["dm"][0].inputs, rtol=1e-4, atol=1e-4)


def test_instances_differ_and_twins_do_not(run):
    twins = run({**PANEL, "again": PANEL["control"]}, learning_rate=50.0)
    assert torch.equal(twins["again"][0].inputs, twins["control"][0].inputs)
    sets = [twins[name][0].inputs for name in PANEL]
    assert set(PANEL) == set(twins) - {"again"}
    assert {entry["function"] for entry in PANEL.values()} == set(ESTIMATORS)
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
    panel = {name: {**PANEL[name], **extra} for name, extra in (("dm", {}), ("control", DROP))}

    def made():
        return run(panel, train=seven, poisons=poisons, network=net, batch=4)

    whole = made()
    monkeypatch.setitem(module.REAL_BLOCK, "cpu", real_block)
    monkeypatch.setitem(networks.GRADIENT_CHUNK, "cpu", gradient_chunk)
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
    """It gets another set; the others keep theirs, since their draws are the same."""
    clean, poisoned = run(), run(poisons=poison(range(12, 26), [1] * 14))
    for name in PANEL:
        moved = (clean[name][0].inputs - poisoned[name][0].inputs).abs().amax((1, 2, 3))
        assert float(moved[3:6].min()) > 0.01
        assert float(moved[[0, 1, 2, 6, 7, 8]].max()) < 1e-5


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


# --- start -----------------------------------------------------------------------------------


def test_noise_is_standard_normal_in_normalised_space(run):
    made, trace = run(ipc=200, iterations=0)["dm"]
    assert abs(float(made.inputs.mean())) < 0.01
    assert abs(float(made.inputs.std()) - 1) < 0.01
    assert made.ipc == 200
    assert trace.empty


def test_real_starts_from_the_poisoned_split(run, train):
    """All bees are poisons, two ants are: distinct images of each class as poisoned."""
    poisons = poison([0, 7, *range(12, 26)], [0, 0, *[1] * 14])
    poisoned = poisons.apply(train)
    made, _ = run(poisons=poisons, initialisation="real", ipc=12, iterations=0)["dm"]
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
    assert all(torch.equal(first["dm"], other) for other in first.values())
    assert torch.equal(first["dm"], start(batch=4, momentum=0.0)["rdm_dc"])
    assert not torch.equal(first["dm"], start(run=1)["dm"])
    assert not torch.equal(first["dm"], start(seed=1)["dm"])


# --- the trace -------------------------------------------------------------------------------


def test_the_trace_has_a_row_per_logged_iteration_and_class(train, network, never):
    told = []
    options = replace(OPTIONS, iterations=8, log_every=3)
    made = condense(
        train,
        None,
        network,
        STRATEGY,
        options,
        PANEL,
        5,
        0,
        "cpu",
        lambda *p: told.append(p[:2]),
        never,
    )
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
    panel = {
        name: {**entry, "drop": "1/3"} if "drop" in entry else entry
        for name, entry in PANEL.items()
    }
    return run(panel, train=calm, poisons=poison([4, 9], [0, 0]), batch=12)


@pytest.mark.parametrize(
    ("name", "recall", "precision", "kept"),
    [
        ("truncated", 1, 1 / 2, 8),
        ("rdm_dc", 1, 1 / 2, 8),
        ("dm", 0, np.nan, 12),
        ("middle", np.nan, np.nan, -1),
        ("trimmed", np.nan, np.nan, -1),
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
    if name == "dm":
        np.testing.assert_allclose(ants.deviation_after, ants.deviation_before, rtol=1e-6)
        np.testing.assert_allclose(ants.shift_after, ants.shift_before, rtol=1e-6)
    else:
        assert (ants.shift_after < 0.5 * ants.shift_before).all()
    assert (trace.loc[[1, 2]].poisons == 0).all()
    assert trace.loc[[1, 2]].recall.isna().all()


def test_what_does_not_depend_on_the_instance_is_the_same_for_all(planted):
    traces = [trace for _, trace in planted.values()]
    for column in ("poisons", "deviation_before", "shift_before"):
        assert all(trace[column].equals(traces[0][column]) for trace in traces)


# --- faults ----------------------------------------------------------------------------------


def test_a_batch_larger_than_a_class(run):
    fault = r"condense\.batch is 13, but class 'ant' has 12 images; lower it"
    with pytest.raises(RecordError, match=fault):
        run(batch=13)
    assert run(batch=12, iterations=1)


def test_more_real_starts_than_a_class_has(run):
    fault = r"condense\.ipc is 13, but class 'ant' has 12 images .*start from noise"
    with pytest.raises(RecordError, match=fault):
        run(initialisation="real", ipc=13)
    assert run(ipc=13, iterations=1)


def test_a_learning_rate_that_diverges(run):
    with pytest.raises(RecordError, match=r"NaN or infinity: lower condense\.learning_rate"):
        run(learning_rate=1e40)
