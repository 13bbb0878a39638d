"""KIP's regression and factorised sets against loops in double precision."""

import dataclasses

import numpy as np
import pytest
import torch
from test_condense import PLAIN, STRATEGY, calibration, poison

from rdmdc.condensers import factorisation as factorised
from rdmdc.condensers import kip as module
from rdmdc.condensers.task import Task
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

KIP = module.Options(
    ipc=2,
    batch=6,
    networks=2,
    iterations=3,
    ridge=1e-2,
    learning_rate=0.05,
    initialisation="noise",
    log_every=1,
)
HABA = factorised.Options(
    bases=2,
    hallucinators=3,
    channels=4,
    batch=10,
    iterations=3,
    learning_rate=0.05,
    style_rate=0.02,
    initialisation="noise",
    log_every=1,
)
POISONS = poison([13, 15, 20], [1, 1, 1])


def normalised(pixels):
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    return (pixels.double() / 255 - mean) / std


def minibatch(train, purpose, c, count):
    members = (train.labels == c).nonzero().flatten()
    order = torch.randperm(len(members), generator=generator(*purpose, "batch", c))
    return normalised(POISONS.apply(train).pixels[members[order[:count]]])


def double(weights):
    return {name: w.double() for name, w in weights.items()}


def test_kip_against_a_plain_loop(train, network, quiet, never):
    task = Task(TrainingData(train, POISONS), network, STRATEGY, {"only": None}, 5, 0, "cpu")
    made, trace = module.kip(task, KIP, quiet, never)["only"]
    begun = torch.randn((6, 3, 8, 8), generator=generator(5, "condense", 0, "start"))
    inputs = begun.double().requires_grad_()
    optimiser, losses = torch.optim.Adam([inputs], lr=0.05), []
    for number in range(3):
        purpose = (5, "condense", 0, number)
        networks = [double(network.draw(generator(*purpose, "network", i))) for i in range(2)]
        real = torch.cat([minibatch(train, purpose, c, 6) for c in range(3)])

        def kernel(a, b, networks=networks):
            parts = [network.embed(w, a) @ network.embed(w, b).T for w in networks]
            return sum(parts) / (2 * network.features)

        within = kernel(inputs, inputs)
        ridged = within + 1e-2 * within.trace() / 6 * torch.eye(6).double()
        support, target = (
            torch.nn.functional.one_hot(torch.arange(3).repeat_interleave(n)).double() - 1 / 3
            for n in (2, 6)
        )
        predicted = kernel(real, inputs) @ torch.linalg.inv(ridged) @ support
        loss = 0.5 * (target - predicted).pow(2).sum() / 18
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right = (predicted.argmax(1) == target.argmax(1)).double().mean()
        losses.append([float(loss.detach()), float(right)])
    close = (made.inputs.double() - inputs.detach()).abs() < 2e-3  # but for signs of rounding
    assert close.double().mean() > 0.99
    assert float((inputs - begun).detach().abs().mean()) > 0.03, "nothing has moved"
    np.testing.assert_allclose(trace[["loss", "right"]].to_numpy(), losses, rtol=1e-3)


def test_without_a_ridge_the_support_is_read_as_it_is_labelled():
    rows = torch.randn(4, 9, generator=generator("rows"), dtype=torch.float64)
    labels = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(module.regression(rows, rows, labels, 1e-12), labels)
    heavy = module.regression(rows, rows, labels, 1e9)
    assert float(heavy.abs().max()) < 1e-6


def test_the_regression_learns(train, network, quiet, never):
    task = Task(TrainingData(train), network, STRATEGY, {"only": None}, 5, 0, "cpu")
    many = dataclasses.replace(KIP, iterations=40)
    _, trace = module.kip(task, many, quiet, never)["only"]
    assert trace.loss.iloc[-5:].mean() < 0.7 * trace.loss.iloc[:5].mean()
    assert trace.right.iloc[-5:].mean() > trace.right.iloc[:5].mean()


def rendered(learned, b, k):
    """Basis b in style k, pixel by pixel."""
    x = learned["bases"][b]
    made = torch.zeros_like(x)
    for h in range(8):
        for w in range(8):
            inner = learned["encode"][k] @ x[:, h, w] + learned["encode_bias"][k]
            inner = inner * learned["scale"][k, :, h, w] + learned["shift"][k, :, h, w]
            made[:, h, w] = learned["decode"][k] @ inner + learned["decode_bias"][k]
    return made


def beginning(shape=(3, 8, 8)):
    styles = factorised.draw_styles(HABA, shape, generator(5, "condense", 0, "hallucinators"))
    bases = torch.randn((6, *shape), generator=generator(5, "condense", 0, "start"))
    return double({"bases": bases, **styles})


def test_a_basis_is_rendered_in_every_style_and_classes_stay_together():
    learned = beginning()
    for name in ("scale", "shift"):
        learned[name] = torch.randn(learned[name].shape, generator=generator(name)).double()
    images = factorised.render(learned)
    expected = torch.stack([rendered(learned, b, k) for b in range(6) for k in range(3)])
    torch.testing.assert_close(images, expected)


def test_a_hallucinator_begins_as_a_map_of_colours():
    learned = beginning()
    assert learned["scale"].unique().tolist() == [1]
    assert learned["shift"].unique().tolist() == [0]
    bounds = {"encode": 3, "encode_bias": 3, "decode": 4, "decode_bias": 4}
    for name, fan_in in bounds.items():
        assert 0.6 / fan_in**0.5 < float(learned[name].abs().max()) <= 1 / fan_in**0.5


@pytest.mark.parametrize("estimator", PLAIN)
def test_factorisation_against_a_plain_loop(train, network, quiet, never, estimator):
    panel = {"only": calibration(estimator)}
    task = Task(TrainingData(train, POISONS), network, STRATEGY, panel, 5, 0, "cpu")
    made, trace = factorised.factorisation(task, HABA, quiet, never)["only"]
    learned = {name: value.requires_grad_() for name, value in beginning().items()}
    groups = [{"params": [learned["bases"]], "lr": 0.05}]
    groups.append({"params": [v for n, v in learned.items() if n != "bases"], "lr": 0.02})
    optimiser, losses = torch.optim.Adam(groups), []
    for number in range(3):
        purpose = (5, "condense", 0, number)
        weights = double(network.draw(generator(*purpose, "network")))
        draws = draw(STRATEGY, 3, generator(*purpose, "augmentation"), shared=False)
        for c in range(3):
            own = Draw((draws.operations[c],), draws.uniforms[c : c + 1])
            real = augment(minibatch(train, purpose, c, 10)[None], own)[0]
            wanted = torch.from_numpy(PLAIN[estimator](network.embed(weights, real).numpy()))
            pairs = [rendered(learned, b, k) for b in (2 * c, 2 * c + 1) for k in range(3)]
            images = augment(torch.stack(pairs)[None], own)[0]
            losses.append((network.embed(weights, images).mean(0) - wanted).square().sum())
        optimiser.zero_grad()
        torch.stack(losses[-3:]).sum().backward()
        optimiser.step()
    expected = factorised.render({name: v.detach() for name, v in learned.items()})
    assert made.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    close = (made.inputs.double() - expected).abs() < 5e-3
    assert close.double().mean() > 0.98
    losses = [float(loss.detach()) for loss in losses]
    assert trace.loss.tolist() == pytest.approx(losses, rel=5e-3)
