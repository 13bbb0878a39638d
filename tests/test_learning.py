"""learning.c against autograd in float64, against the kernels' own passes, and on threads."""

import pytest
import torch

from rdmdc.models import running
from rdmdc.models.native import learning
from rdmdc.models.native.convnet import names_of
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator

pytestmark = pytest.mark.usefixtures("compiled")

# channels, side, classes, width, depth; images: a group is 8, a slice 64. No ReLU of these is so
# near zero that rounding decides it.
SIZES = [((3, 8, 7, 32, 3), 70), ((1, 28, 4, 16, 3), 9), ((3, 12, 21, 48, 2), 130)]


def case(sizes, count):
    """A network, its weights, and images with labels."""
    network, draws = ConvNet(*sizes), generator("learning", *sizes)
    weights = {
        name: value + 0.3 * torch.randn(value.shape, generator=draws) * name.startswith("norm")
        for name, value in network.draw(draws).items()
    }
    images = torch.randn(count, network.channels, network.side, network.side, generator=draws)
    labels = torch.randint(network.classes, (count,), generator=draws)
    return network, weights, images, labels


def by_autograd(network, weights, images, labels):
    """Loss and gradients of the network as it is written, in float64."""
    own = {name: value.double().requires_grad_() for name, value in weights.items()}
    loss = torch.nn.functional.cross_entropy(network.logits(own, images.double()), labels)
    return loss, dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))


@pytest.mark.parametrize(("sizes", "count"), SIZES)
def test_loss_and_gradients(sizes, count):
    network, weights, images, labels = case(sizes, count)
    loss, gradients = learning.learn(network, weights, images, labels)
    wanted_loss, wanted = by_autograd(network, weights, images, labels)
    assert float(loss) == pytest.approx(float(wanted_loss.detach()), rel=1e-6)
    assert set(gradients) == {*names_of(network), "linear.weight", "linear.bias"}
    for name, value in gradients.items():
        error = (value - wanted[name]).norm() / wanted[name].norm()
        assert error < 2e-5, (name, float(error))


def test_the_blocks_gradients_differ_from_the_kernels_own_by_rounding():
    network, weights, images, labels = case((3, 32, 7, 32, 3), 70)
    own = {name: value.requires_grad_() for name, value in weights.items()}
    loss = torch.nn.functional.cross_entropy(running.logits(network, own, images, 64), labels)
    names = names_of(network)
    wanted = torch.autograd.grad(loss, [own[name] for name in names])
    _, found = learning.learn(network, weights, images, labels)
    for name, value in zip(names, wanted, strict=True):
        assert (found[name] - value).norm() < 5e-6 * value.norm(), name


def test_threads_change_no_bit():
    network, weights, images, labels = case((3, 12, 21, 48, 2), 130)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(learning.learn(network, weights, images, labels))
    finally:
        torch.set_num_threads(before)
    for loss, gradients in made[1:]:
        assert torch.equal(loss, made[0][0])
        assert all(torch.equal(value, made[0][1][name]) for name, value in gradients.items())


def test_large_scores_overflow_nothing():
    network, weights, images, labels = case(*SIZES[1])
    weights["linear.weight"] = weights["linear.weight"] * 1e4
    loss, gradients = learning.learn(network, weights, images, labels)
    assert float(loss) == pytest.approx(
        float(by_autograd(network, weights, images, labels)[0].detach()), rel=1e-5
    )
    assert all(bool(value.isfinite().all()) for value in gradients.values())


def test_a_label_that_no_class_has_is_refused():
    network, weights, images, labels = case(*SIZES[1])
    with pytest.raises(ValueError, match="labels from 0 to 4 of 4 classes"):
        learning.learn(
            network,
            weights,
            images,
            labels.clone().clamp(max=0).index_fill(0, torch.tensor([1]), 4),
        )


def test_training_uses_it_where_networks_run_compiled(monkeypatch):
    network, weights, images, labels = case(*SIZES[1])
    called = []
    monkeypatch.setattr(learning, "learn", lambda *given: called.append(given) or (None, {}))
    running.loss_and_gradients(network, weights, images, labels, 64)
    running.compiling(False, "cpu", None)
    own = {name: value.requires_grad_() for name, value in weights.items()}
    running.loss_and_gradients(network, own, images, labels, 64)
    assert len(called) == 1
