"""MTT, DD and their Adam against loops in double precision with torch's own optimisers."""

from functools import partial

import pytest
import torch
from test_condense import STRATEGY, poison

from rdmdc.condensers import dd as dd_module
from rdmdc.condensers import mtt as mtt_module
from rdmdc.condensers.adam import adam
from rdmdc.condensers.task import Task
from rdmdc.models.augment import augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

MTT = mtt_module.Options(
    ipc=2,
    experts=2,
    interval=3,
    expert_batch=16,
    expert_rate=0.1,
    latest_start=1,
    span=2,
    student_steps=3,
    student_batch=4,
    iterations=3,
    learning_rate=5.0,
    momentum=0.5,
    rate_rate=1e-3,
    initialisation="noise",
    log_every=1,
)
DD = dd_module.Options(
    ipc=2,
    batch=5,
    iterations=3,
    steps=3,
    start_rate=0.1,
    learning_rate=0.05,
    initialisation="noise",
    log_every=1,
)
LABELS = torch.arange(3).repeat_interleave(2)
POISONS = poison([13, 15, 20], [1, 1, 1])


@pytest.fixture
def task(train, network):
    return Task(TrainingData(train, POISONS), network, STRATEGY, {"only": None}, 5, 0, "cpu")


def start():
    shape = (6, 3, 8, 8)
    return torch.randn(shape, generator=generator(5, "condense", 0, "start")).double()


def normalised(pixels):
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    return (pixels.double() / 255 - mean) / std


def augmented(images, draws):
    numbers = draw(STRATEGY, len(images), draws, shared=True)
    return augment(images[:, None], numbers)[:, 0]


def passes_over(count, size, draws):
    """The batches of three steps: passes in fresh orders."""
    batches = []
    while len(batches) < 3:
        batches += torch.randperm(count, generator=draws).split(size)
    return batches[:3]


def double(weights):
    return {name: w.detach().double().clone().requires_grad_() for name, w in weights.items()}


def trained(train, network, expert):
    """The expert's weights at each saved state."""
    pixels = normalised(POISONS.apply(train).pixels)
    states = [double(network.draw(generator(5, "condense", 0, "expert", expert, "network")))]
    for at in range(1, 4):
        weights = double(states[-1])
        sgd, draws = (
            torch.optim.SGD(weights.values(), lr=0.1),
            generator(5, "condense", 0, "expert", expert, at),
        )
        # permutations are drawn as they are needed, between the draws of augmentation
        waiting = []
        for _ in range(3):
            if not waiting:
                waiting = list(torch.randperm(39, generator=draws).split(16))
            chosen = waiting.pop(0)
            logits = network.logits(weights, augmented(pixels[chosen], draws))
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(logits, train.labels[chosen]).backward()
            sgd.step()
        states.append(weights)
    return states


def student(network, weights, inputs, rate, batches, draws):
    for chosen in batches:
        logits = network.logits(weights, augmented(inputs[chosen], draws))
        loss = torch.nn.functional.cross_entropy(logits, LABELS[chosen])
        made = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {n: w - rate * g for (n, w), g in zip(weights.items(), made, strict=True)}
    return weights


def test_mtt_against_a_plain_loop(train, network, task, quiet, never):
    made, trace = mtt_module.mtt(task, MTT, quiet, never)["only"]
    experts = [trained(train, network, expert) for expert in range(2)]
    inputs, rate = start().requires_grad_(), torch.tensor(0.1, dtype=torch.float64).requires_grad_()
    sgd = torch.optim.SGD(
        [{"params": [inputs], "lr": 5.0}, {"params": [rate], "lr": 1e-3}], momentum=0.5
    )
    losses = []
    for number in range(3):
        choice = generator(5, "condense", 0, number, "start")
        expert, at = (int(torch.randint(2, (1,), generator=choice)) for _ in range(2))
        begin, target = experts[expert][at], experts[expert][at + 2]
        draws = generator(5, "condense", 0, number, "student")
        batches = passes_over(6, 4, draws)
        weights = student(network, double(begin), inputs, rate, batches, draws)
        flat = [torch.cat([s[n].flatten() for n in target]) for s in (weights, begin, target)]
        loss = (flat[0] - flat[2]).square().sum() / (flat[1] - flat[2]).square().sum()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append([float(loss.detach()), float(rate.detach())])
    moved = (inputs - start()).detach().abs().amax((1, 2, 3))
    assert float(moved.max()) > 0.02, "nothing has moved"
    torch.testing.assert_close(made.inputs.double(), inputs.detach(), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        torch.tensor(trace[["loss", "rate"]].to_numpy()),
        torch.tensor(losses).double(),
        rtol=1e-3,
        atol=0,
    )


def test_dd_against_a_plain_loop(train, network, task, quiet, never):
    made, trace = dd_module.dd(task, DD, quiet, never)["only"]
    pixels = normalised(POISONS.apply(train).pixels)
    inputs = start().requires_grad_()
    raw = torch.tensor(0.1, dtype=torch.float64).expm1().log().requires_grad_()
    optimiser = torch.optim.Adam([inputs, raw], lr=0.05)
    losses = []
    for number in range(3):
        purpose = (5, "condense", 0, number)
        weights = double(network.draw(generator(*purpose, "network")))
        draws = generator(*purpose, "student")
        rate = raw.exp().log1p()
        weights = student(network, weights, inputs, rate, [torch.arange(6)] * 3, draws)
        chosen = []
        for c in range(3):
            members = (train.labels == c).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator(*purpose, "batch", c))
            chosen.append(members[order[:5]])
        real = augmented(pixels[torch.cat(chosen)], generator(*purpose, "augmentation"))
        labels = torch.arange(3).repeat_interleave(5)
        loss = torch.nn.functional.cross_entropy(network.logits(weights, real), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append([float(loss.detach()), float(raw.detach().exp().log1p())])
    # Adam's first step is ± its rate, also where the gradient is rounding: compare where it is not
    close = (made.inputs.double() - inputs.detach()).abs() < 2e-3
    assert close.double().mean() > 0.99
    torch.testing.assert_close(
        torch.tensor(trace[["loss", "rate"]].to_numpy()),
        torch.tensor(losses).double(),
        rtol=2e-3,
        atol=0,
    )


def test_adam_is_torchs():
    values = {
        "a": torch.randn(4, 3, generator=generator("a")).double(),
        "b": torch.tensor(2.0).double(),
    }
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    optimiser, moments = torch.optim.Adam(leaves.values(), lr=0.3), {}
    for step in range(1, 6):
        for leaf in leaves.values():
            leaf.grad = (leaf.detach() - 1) ** 3 * step
        gradients = {name: leaf.grad.clone() for name, leaf in leaves.items()}
        optimiser.step()
        values, moments = adam(values, gradients, moments, step, 0.3)
    for name, leaf in leaves.items():
        torch.testing.assert_close(values[name], leaf.detach())


def test_experts_are_the_same_for_every_number_of_iterations(task, quiet):
    """A set of no updates has trained them all: their states are in the last checkpoint."""
    kept = []

    class Tape:
        def resume(self):
            return None

        def offer(self, state):
            kept.append(state)

    mtt_module.mtt(task, MTT, quiet, Tape())
    names = {name for name in kept[-1].tensors if name.startswith("expert")}
    assert names == {f"expert {k} at {at}" for k in range(2) for at in range(4)}
    for name in names:
        first = next(state for state in kept if name in state.tensors)
        assert all(
            torch.equal(v, kept[-1].tensors[name][n]) for n, v in first.tensors[name].items()
        )


def test_the_loss_of_dd_falls(task, quiet, never):
    many = partial(dd_module.Options, **{**vars(DD), "iterations": 40, "learning_rate": 0.1})
    _, trace = dd_module.dd(task, many(), quiet, never)["only"]
    assert trace.loss.iloc[-8:].mean() < 0.8 * trace.loss.iloc[:8].mean()
    assert (trace.rate > 0).all()


def test_compiled_experts_teach_the_same(train, quiet, never, compiled):
    """Students run uncompiled on both sides, so that only the experts' rounding differs."""
    from rdmdc.models import running

    wide = ConvNet(3, 8, 3, width=16, depth=2)
    task = Task(TrainingData(train), wide, STRATEGY, {"only": None}, 5, 0, "cpu")
    made = mtt_module.mtt(task, MTT, quiet, never)["only"][0].inputs
    running.compiling(False, "cpu", None)
    plain = mtt_module.mtt(task, MTT, quiet, never)["only"][0].inputs
    assert not torch.equal(made, plain)
    torch.testing.assert_close(made, plain, rtol=1e-3, atol=1e-3)
