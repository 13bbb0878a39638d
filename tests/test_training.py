"""Training: it learns, it is torch's SGD on the draws that it documents, and nothing else."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rdmdc import options
from rdmdc.models.augment import augment, draw
from rdmdc.models.training import Schedule, fit, pretrain
from rdmdc.randomness import generator

SCHEDULE = Schedule(
    epochs=4,
    batch=16,  # 39 images: the last batch of an epoch is smaller
    learning_rate=0.05,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-3,
    decay_after="1/2",
    augmentation=("color", "crop", "rotate"),
)
PURPOSE = ("a purpose", 2)


@pytest.fixture(scope="module")
def run(train, network, quiet, never):
    """Fit the tiny training split under a changed schedule."""
    inputs = train.normalisation.normalise(train.pixels)

    def run(purpose=PURPOSE, progress=quiet, **changes):
        chosen = replace(SCHEDULE, **changes)
        return fit(network, lambda i: inputs[i], train.labels, chosen, purpose, progress, never)

    return run


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_an_easy_set(train, test, network, quiet, never):
    schedule = replace(SCHEDULE, epochs=40, augmentation=("crop", "flip"))
    weights = pretrain(train, network, schedule, 0, "cpu", quiet, never)
    predicted = network.logits(weights, test.normalisation.normalise(test.pixels)).argmax(1)
    assert float((predicted == test.labels).float().mean()) > 0.95


def test_no_epochs_give_the_initial_weights(run, network):
    told = []
    weights = run(epochs=0, progress=lambda *p: told.append(p))
    assert same(weights, network.draw(generator(*PURPOSE, "weights")))
    assert told == []


@pytest.mark.parametrize(
    ("decay_after", "at"), [("0", 0), ("1/2", 2), ("0.6", 3), ("1", 4)], ids=str
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_is_torchs_sgd_with_the_rate_a_tenth_after_decay(
    run, train, network, decay_after, at, nesterov
):
    weights = run(decay_after=decay_after, nesterov=nesterov)

    expected = network.draw(generator(*PURPOSE, "weights"))
    for value in expected.values():
        value.requires_grad_()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    sgd = torch.optim.SGD(
        expected.values(), 0.05, momentum=0.9, nesterov=nesterov, weight_decay=5e-3
    )
    decay = torch.optim.lr_scheduler.MultiStepLR(sgd, [at], gamma=0.1)
    for epoch in range(4):
        draws = generator(*PURPOSE, "epoch", epoch)
        order = torch.randperm(39, generator=draws)
        for chosen in (order[:16], order[16:32], order[32:]):
            inputs = (train.pixels[chosen] / 255 - mean) / std
            drawn = draw(SCHEDULE.augmentation, len(chosen), draws, shared=True)
            assert len(set(drawn.operations)) == 1, "one operation a batch"
            logits = network.logits(expected, augment(inputs[:, None], drawn)[:, 0])
            sgd.zero_grad()
            F.cross_entropy(logits, train.labels[chosen]).backward()
            sgd.step()
        decay.step()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value.detach(), rtol=1e-4, atol=1e-5)


def test_decay_matters(run):
    assert not same(run(decay_after="1/2"), run(decay_after="1"))


def test_draws_follow_the_purpose_not_the_global_seed(run):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weights = run()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(weights, run())
    assert not same(weights, run(purpose=("a purpose", 3)))


def test_weights_need_no_gradient(run):
    assert not any(value.requires_grad for value in run(epochs=1).values())


def test_progress_is_told_each_epoch(run):
    told = []
    run(epochs=3, progress=lambda *p: told.append(p))
    assert [p[:2] for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(loss > 0 for *_, loss in told)


def test_victims_of_other_epochs_or_seeds_start_elsewhere(train, network, quiet, never):
    """Without a learning rate the weights stay what they were at the start."""

    def start(epochs, seed=0):
        still = replace(SCHEDULE, epochs=epochs, learning_rate=0.0)
        return pretrain(train, network, still, seed, "cpu", quiet, never)

    starts = [start(0), start(1), start(2), start(0, seed=1), start(1, seed=1)]
    assert len({float(s["conv0.weight"].sum()) for s in starts}) == 5
    assert same(starts[1], start(1))
    assert same(starts[0], network.draw(generator(0, "pretrain", 0, "weights")))


def test_a_victim_is_fit_to_clean_normalised_images(train, network, quiet, never):
    inputs = train.normalisation.normalise(train.pixels)
    purpose = (7, "pretrain", 4)
    expected = fit(network, lambda i: inputs[i], train.labels, SCHEDULE, purpose, quiet, never)
    assert same(pretrain(train, network, SCHEDULE, 7, "cpu", quiet, never), expected)


def test_a_schedule_is_read_from_its_section():
    section = {**vars(SCHEDULE), "augmentation": ["color", "crop", "rotate"]}
    assert options.build(Schedule, section, "evaluate") == SCHEDULE


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("epochs", -1, "-1 must be .*at least 0"),
        ("batch", 0, "0 must be .*at least 1"),
        ("learning_rate", 0, "0 must be .*above 0"),
        ("momentum", 1.0, "1.0 must be .*below 1"),
        ("weight_decay", -0.1, "-0.1 must be .*at least 0"),
        ("decay_after", "3/2", "'3/2' is outside 0..1"),
        ("augmentation", ["color", "blur"], "'blur' must be .*one of identity, color"),
    ],
)
def test_a_schedule_that_cannot_be(name, value, fault):
    with pytest.raises(options.OptionError, match=rf"evaluate\.{name}: .*{fault}"):
        options.build(Schedule, {**vars(SCHEDULE), name: value}, "evaluate")
