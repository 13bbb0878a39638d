"""DC and DSA against a loop in double precision, image by image and layer by layer."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from test_condense import PLAIN, STRATEGY, calibration, poison

from rdmdc import plugins
from rdmdc.condensers import class_gradients as module
from rdmdc.condensers.matching_gradients import Options, distance
from rdmdc.condensers.task import Task
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

OPTIONS = Options(
    ipc=2,
    batch=10,
    iterations=1,
    outer_loops=3,
    inner_loops=2,
    learning_rate=2.0,
    momentum=0.5,
    network_rate=0.1,
    network_batch=4,
    initialisation="noise",
    log_every=1,
)
STRATEGIES = {"dc": (), "dsa": STRATEGY}


@pytest.fixture
def run(train, network, quiet, never):
    def run(name, panel, poisons=None, options=OPTIONS):
        data = TrainingData(train, poisons)
        task = Task(data, network, STRATEGY, panel, 5, 0, "cpu")
        return plugins.get("condenser", name, "")(task, options, quiet, never)

    return run


def gradients(network, weights, images, label, graph=False):
    """Of the class's mean cross-entropy, by every weight."""
    labels = torch.full((len(images),), label)
    loss = torch.nn.functional.cross_entropy(network.logits(weights, images), labels)
    return dict(
        zip(
            weights,
            torch.autograd.grad(loss, list(weights.values()), create_graph=graph),
            strict=True,
        )
    )


def plain_distance(real, synthetic):
    """A cosine for each row of each matrix."""
    total = 0.0
    for name, wanted in real.items():
        if wanted.ndim > 1:
            for a, b in zip(wanted, synthetic[name], strict=True):
                total += 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)
    return total


def real_side(network, weights, images, label, calibrate):
    """The class's gradient: the mean over images that the estimate of the last layer averages."""
    each = [gradients(network, weights, image[None], label) for image in images]
    last = np.stack([one["linear.weight"].flatten().numpy() for one in each])
    wanted = torch.from_numpy(calibrate(last))
    kept = kept_by(last, calibrate)
    made = {name: torch.stack([each[i][name] for i in kept]).mean(0) for name in weights}
    return {**made, "linear.weight": wanted.view_as(made["linear.weight"])}


def kept_by(rows, calibrate):
    """Which rows the estimate is the mean of, found out by leaving out one; else all of them."""
    value = calibrate(rows)
    order = [i for i in range(len(rows)) if contributes(rows, i, calibrate)]
    whole = order and np.allclose(rows[order].mean(0), value)
    return order if whole else range(len(rows))


def contributes(rows, i, calibrate):
    marked = np.concatenate([rows, np.zeros((len(rows), 1))], 1)
    marked[i, -1] = 1e-9  # too small to change what is kept
    return abs(calibrate(marked)[-1]) > 0


def textbook(train, network, options, calibrate, strategy):
    """The set after each update of the first network."""
    classes, m = 3, options.ipc
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    start = torch.randn((6, 3, 8, 8), generator=generator(5, "condense", 0, "start"))
    synthetic = start.double().requires_grad_()
    sgd = torch.optim.SGD([synthetic], lr=options.learning_rate, momentum=options.momentum)
    drawn = network.draw(generator(5, "condense", 0, 0, "network"))
    weights = {name: w.double().requires_grad_() for name, w in drawn.items()}
    learner = torch.optim.SGD(weights.values(), lr=options.network_rate)
    labels, losses = torch.arange(3).repeat_interleave(m), []
    for outer in range(options.outer_loops):
        purpose = (5, "condense", 0, 0, "outer", outer)
        draws = draw(strategy, classes, generator(*purpose, "augmentation"), shared=False)
        terms = []
        for c in range(classes):
            own = Draw((draws.operations[c],), draws.uniforms[c : c + 1])
            members = (train.labels == c).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator(*purpose, "batch", c))
            pixels = train.pixels[members[order[: options.batch]]].double()
            images = augment(((pixels / 255 - mean) / std)[None], own)[0]
            real = real_side(network, weights, images, c, calibrate)
            made = augment(synthetic[c * m : (c + 1) * m][None], own)[0]
            terms.append(plain_distance(real, gradients(network, weights, made, c, graph=True)))
        sgd.zero_grad()
        torch.stack(terms).sum().backward()
        sgd.step()
        losses.append([float(term.detach()) for term in terms])
        inner = generator(*purpose, "inner")
        for _ in range(options.inner_loops if outer < options.outer_loops - 1 else 0):
            for chosen in torch.randperm(6, generator=inner).split(options.network_batch):
                numbers = draw(strategy, len(chosen), inner, shared=True)
                images = augment(synthetic.detach()[chosen][:, None], numbers)[:, 0]
                learner.zero_grad()
                torch.nn.functional.cross_entropy(
                    network.logits(weights, images), labels[chosen]
                ).backward()
                learner.step()
    return synthetic.detach(), losses


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("estimator", PLAIN)
def test_against_a_plain_loop(run, train, network, name, estimator):
    poisons = poison([13, 15, 20], [1, 1, 1])
    made, trace = run(name, {"only": calibration(estimator)}, poisons)["only"]
    plain = PLAIN[estimator]
    expected, losses = textbook(poisons.apply(train), network, OPTIONS, plain, STRATEGIES[name])
    torch.testing.assert_close(made.inputs.double(), expected, rtol=0, atol=2e-3)
    assert trace.loss.tolist() == pytest.approx(np.ravel(losses).tolist(), rel=1e-3)
    start = torch.randn((6, 3, 8, 8), generator=generator(5, "condense", 0, "start"))
    assert float((made.inputs - start).abs().amax((1, 2, 3)).min()) > 0.05, "nothing has moved"


def test_dc_takes_no_augmentation_and_dsa_the_presets(run):
    panel = {"mean": calibration("mean")}
    assert not torch.equal(run("dc", panel)["mean"][0].inputs, run("dsa", panel)["mean"][0].inputs)


def test_the_distance_is_of_directions_and_of_matrices_only():
    rows = {"a": torch.randn(3, 2, 2, 2, generator=generator("rows"))}
    scaled = {"a": rows["a"] * torch.tensor([2.0, 5, 7])[:, None, None, None]}
    assert float(distance(rows, rows)) == pytest.approx(0, abs=1e-5)
    assert float(distance(rows, scaled)) == pytest.approx(0, abs=1e-5)
    assert float(distance(rows, {"a": -rows["a"]})) == pytest.approx(6, abs=1e-5)


@pytest.mark.parametrize("estimator", ["spectral_mean", "truncated_mean", "contrastive_mean"])
def test_a_dropped_image_has_no_part_in_any_layer(train, network, estimator):
    """The gradient by the last layer, made with the others', is the estimate of it."""
    weights = {n: w.requires_grad_() for n, w in network.draw(generator("w")).items()}
    inputs = torch.stack(
        [train.normalisation.normalise(train.pixels[train.labels == c][:10]) for c in range(3)]
    )
    draws = draw((), 3, generator("none"), shared=False)
    real = module.Real(inputs, torch.zeros(3, 10, dtype=torch.bool), draws)
    chosen = calibration(estimator, others=20)
    found, rows = module.real_gradients(network, weights, real, chosen, ("p",), log=True)
    vectors = torch.stack(
        [
            module.last_layer_gradients(weights, network.embed(weights, inputs[c]).detach(), c)
            for c in range(3)
        ]
    )
    others = module.sample_others(vectors, 20, generator("p", "others"))
    again = partial(chosen, purpose=("p",), others=others)
    for c in range(3):
        estimate = again(vectors[c : c + 1], [c])
        torch.testing.assert_close(found[c]["linear.weight"].flatten(), estimate.value[0])
        kept = inputs[c][estimate.kept[0]]
        assert len(kept) == rows[c]["kept"] == 7
        expected = gradients(network, weights, kept, c)
        torch.testing.assert_close(found[c]["conv0.weight"], expected["conv0.weight"])


def test_a_median_stands_for_the_last_layer_alone(train, network):
    weights = {n: w.requires_grad_() for n, w in network.draw(generator("w")).items()}
    inputs = train.normalisation.normalise(train.pixels[:10])[None]
    draws = draw((), 1, generator("none"), shared=False)
    real = module.Real(inputs, torch.zeros(1, 10, dtype=torch.bool), draws)
    (found,), _ = module.real_gradients(
        network, weights, real, calibration("median"), ("p",), log=False
    )
    plain = gradients(network, weights, inputs[0], 0)
    torch.testing.assert_close(found["conv1.weight"], plain["conv1.weight"])
    assert not torch.allclose(found["linear.weight"], plain["linear.weight"])


def test_the_filter_meets_poisons_in_gradients(run, train):
    """Chessboards among a class's images: their last-layer gradients are outliers."""
    panel = {name: calibration(name, others=20) for name in ("mean", "truncated_mean")}
    traces = run("dc", panel, poison([13, 20], [1, 1]))
    of_bees = {name: trace[trace["class"] == 1] for name, (_, trace) in traces.items()}
    assert (of_bees["mean"].poisons > 0).any()
    pd.testing.assert_series_equal(of_bees["mean"].poisons, of_bees["truncated_mean"].poisons)
    caught = of_bees["truncated_mean"].recall.dropna()
    assert caught.mean() > 0.6


def test_the_loss_falls(run):
    many = Options(**{**vars(OPTIONS), "iterations": 12, "learning_rate": 5.0})
    _, trace = run("dc", {"mean": calibration("mean")}, options=many)["mean"]
    first = trace[trace.iteration % 3 == 0].groupby("iteration").loss.sum()
    assert first.iloc[-4:].mean() < 0.8 * first.iloc[:2].mean()
