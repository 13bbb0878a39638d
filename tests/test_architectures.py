"""Every network family against an independent torch.nn.Module that carries the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rdmdc import plugins
from rdmdc.models.network import NetworkError
from rdmdc.networks import alexnet, convnet, mlp, resnet18, vgg11

CLASSES = 5
FAMILIES = plugins.load("network").plugins


# --- the references: their parameters stand in the order in which weights are drawn --------------


def conv_norm(inputs, outputs, kernel, stride=1, padding=0, bias=True):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias),
        nn.InstanceNorm2d(outputs, affine=True),
    )


def convnet_module(channels, side, width=8):
    layers, inputs = [nn.ZeroPad2d(2 if side == 28 else 0)], channels
    for _ in range(3):
        layers += [conv_norm(inputs, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        inputs = width
    return nn.Sequential(*layers, nn.Flatten())


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride, 1, bias=False)
        self.second = conv_norm(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        return (self.second(self.first(x).relu()) + self.shortcut(x)).relu()


def resnet18_module(channels, side, width=4):
    blocks = [
        (1, 1, 1),
        (1, 1, 1),
        (1, 2, 2),
        (2, 2, 1),
        (2, 4, 2),
        (4, 4, 1),
        (4, 8, 2),
        (8, 8, 1),
    ]
    return nn.Sequential(
        conv_norm(channels, width, 3, padding=1, bias=False),
        nn.ReLU(),
        *[Residual(width * a, width * b, stride) for a, b, stride in blocks],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def alexnet_module(channels, side, width=6):
    w = width // 2
    return nn.Sequential(
        *[nn.Conv2d(channels, 2 * w, 5, padding=4 if side == 28 else 2), nn.ReLU()],
        nn.MaxPool2d(2),
        *[nn.Conv2d(2 * w, 3 * w, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(3 * w, 4 * w, 3, padding=1), nn.ReLU()],
        *[nn.Conv2d(4 * w, 3 * w, 3, padding=1), nn.ReLU()],
        *[nn.Conv2d(3 * w, 3 * w, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        nn.Flatten(),
    )


def vgg11_module(channels, side, width=4):
    layers, inputs = [nn.ZeroPad2d(2 if side == 28 else 0)], channels
    for layer in (1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool"):
        if layer == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [conv_norm(inputs, layer * width, 3, padding=1), nn.ReLU()]
            inputs = layer * width
    return nn.Sequential(*layers, nn.Flatten())


def mlp_module(channels, side, hidden=12):
    first = nn.Linear(channels * side * side, hidden)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())


@dataclass(frozen=True)
class Family:
    """``features``: D at sides 16, 28, 32 and 64, None where the side does not fit."""

    options: Any
    module: Callable[[int, int], nn.Module]
    features: tuple[int | None, int, int, int]
    too_small: tuple[int, ...]
    uneven: tuple[int, ...] = ()


CASES = {
    "alexnet": Family(alexnet.Options(6), alexnet_module, (36, 144, 144, 576), (4, 5), (23, 31)),
    "convnet": Family(convnet.Options(8, 3), convnet_module, (32, 128, 128, 512), (4, 5), (31,)),
    "mlp": Family(mlp.Options(12), mlp_module, (12, 12, 12, 12), ()),
    "resnet18": Family(resnet18.Options(4), resnet18_module, (32, 32, 32, 32), (1, 7, 8)),
    "vgg11": Family(vgg11.Options(4), vgg11_module, (None, 32, 32, 128), (8, 16, 20), (27, 63)),
}
SIZES = [
    pytest.param(name, channels, side, id=f"{name}-{channels}-{side}")
    for name, family in CASES.items()
    for side, features in zip((16, 28, 32, 64), family.features, strict=True)
    for channels in (1, 3)
    if features is not None
]


def test_every_family_is_tested():
    assert CASES.keys() == FAMILIES.keys()


def made(name, channels=3, side=32):
    return FAMILIES[name](channels, side, CLASSES, CASES[name].options)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network):
    """A draw in float64 whose norms are neither one nor zero, as after training."""
    noise = seeded(9)
    return {
        name: value.double()
        + 0.3 * torch.randn(value.shape, generator=noise) * name.rsplit(".")[-2].startswith("norm")
        for name, value in network.draw(seeded()).items()
    }


def inputs_of(network, count=3):
    shape = (count, network.channels, network.side, network.side)
    return torch.randn(shape, generator=seeded(1), dtype=torch.float64)


def reference(network, name, weights):
    """The independent module with its last layer, loaded with the weights."""
    body = CASES[name].module(network.channels, network.side)
    module = nn.Sequential(body, nn.Linear(network.features, CLASSES)).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights.values(), strict=True):
            assert parameter.shape == value.shape
            parameter.copy_(value)
    return module


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


# --- forward and backward --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels", "side"), SIZES)
def test_forward(name, channels, side):
    network = made(name, channels, side)
    weights, inputs = weights_of(network), inputs_of(network)
    module = reference(network, name, weights)
    embeddings = network.embed(weights, inputs)
    features = dict(zip((16, 28, 32, 64), CASES[name].features, strict=True))[side]
    assert embeddings.shape == (3, features)
    assert network.features == features
    assert_close(embeddings, module[0](inputs))
    assert_close(network.logits(weights, inputs), module(inputs))


def removed_by_a_norm(name, weights):
    """True for a convolution's bias that the instance norm behind it takes away."""
    return name.endswith(".bias") and name.replace("conv", "norm") in weights.keys() - {name}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    """First ones by inputs and all weights, then the inputs' through the weights' gradients."""
    network = made(name)
    weights = {n: w.requires_grad_() for n, w in weights_of(network).items()}
    inputs = inputs_of(network).requires_grad_()
    by = torch.randn(3, CLASSES, generator=seeded(2), dtype=torch.float64)
    module = reference(network, name, weights)

    def gradients(logits, parameters):
        loss = (logits.square() * by).sum()
        first = torch.autograd.grad(loss, [inputs, *parameters], create_graph=True)
        squares = torch.stack([part.square().sum() for part in first[1:]]).sum()
        return [*first, *torch.autograd.grad(squares, inputs)]

    ours = gradients(network.logits(weights, inputs), weights.values())
    theirs = gradients(module(inputs), list(module.parameters()))
    names = ["inputs", *weights, "inputs, second"]
    for of, one, other in zip(names, ours, theirs, strict=True):
        if removed_by_a_norm(of, weights):
            assert one.abs().max() < 1e-9, of
        else:
            assert one.abs().max() > 1e-4, of
            assert (one - other).norm() < 1e-8 * other.norm(), of


@pytest.mark.parametrize("name", CASES)
def test_an_image_depends_on_itself_alone(name):
    """Bit for bit whatever is beside it, and to rounding in a batch of another size."""
    network = made(name)
    weights, inputs = weights_of(network), inputs_of(network, 6)
    embedded = network.embed(weights, inputs)
    beside_others = network.embed(weights, torch.cat([inputs[:2], 50 * inputs[2:].flip(0)]))
    assert torch.equal(beside_others[:2], embedded[:2])
    assert not torch.equal(beside_others[2:], embedded[2:])
    for i in range(6):
        assert_close(network.embed(weights, inputs[i : i + 1]), embedded[i : i + 1])


@pytest.mark.parametrize("name", CASES)
def test_one_graph(name):
    """torch.compile, which runs networks on GPUs, traces the embedding without a break."""
    network = made(name)
    weights, inputs = weights_of(network), inputs_of(network)
    compiled = torch.compile(
        lambda w, x: network.embed(w, x), fullgraph=True, dynamic=False, backend="eager"
    )
    assert torch.equal(compiled(weights, inputs), network.embed(weights, inputs))


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"),
    [(name, side) for name, case in CASES.items() for side in case.too_small + case.uneven],
)
def test_a_side_that_does_not_fit(name, side):
    with pytest.raises(NetworkError, match=rf"{name}|ConvNet") as fault:
        made(name, side=side)
    assert f"images of side {side}" in str(fault.value)
    assert "choose a side" in str(fault.value)


@pytest.mark.parametrize("side", [1, 9, 31])
def test_sides_that_fit_the_mlp(side):
    network = made("mlp", side=side)
    assert network.embed(weights_of(network), inputs_of(network)).shape == (3, 12)


@pytest.mark.parametrize("side", [9, 10, 31])
def test_a_resnet_strides_over_uneven_sides(side):
    network = made("resnet18", side=side)
    weights, inputs = weights_of(network), inputs_of(network)
    assert_close(network.logits(weights, inputs), reference(network, "resnet18", weights)(inputs))


@pytest.mark.parametrize(
    ("name", "options", "channels", "side", "expected"),
    [
        ("alexnet", alexnet.Options(128), 3, 32, 1_872_202),
        ("alexnet", alexnet.Options(128), 1, 28, 1_865_802),
        ("mlp", mlp.Options(128), 3, 32, 411_146),
        ("resnet18", resnet18.Options(64), 3, 32, 11_173_962),
        ("vgg11", vgg11.Options(64), 3, 32, 9_231_114),
    ],
)
def test_published_size(name, options, channels, side, expected):
    """Weights and biases for ten classes at the widths that the literature evaluates."""
    network = FAMILIES[name](channels, side, 10, options)
    assert sum(value.numel() for value in network.draw(seeded()).values()) == expected


# --- random weights --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_draw_depends_on_its_generator_alone(name):
    network, state = made(name), torch.get_rng_state()
    first, again, other = (network.draw(seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(value.dtype == torch.float32 for value in first.values())
    assert list(first) == list(again)
    assert all(torch.equal(first[n], again[n]) for n in first)
    differing = {n for n in first if not torch.equal(first[n], other[n])}
    assert differing == {n for n in first if not n.rsplit(".")[-2].startswith("norm")}
    network.check(first)


@pytest.mark.parametrize("name", CASES)
def test_initialisation_is_torchs_default(name):
    """Shapes, bounds and the distribution of torch.nn's layers; norms one and zero."""
    network = made(name)
    drawn = network.draw(seeded())
    with torch.random.fork_rng():
        torch.manual_seed(5)
        body = CASES[name].module(network.channels, network.side)
        theirs = [*body.parameters(), *nn.Linear(network.features, CLASSES).parameters()]
    assert list(drawn)[-2:] == ["linear.weight", "linear.bias"]
    for (of, value), parameter in zip(drawn.items(), theirs, strict=True):
        expected = parameter.detach()
        assert value.shape == expected.shape, of
        if of.rsplit(".")[-2].startswith("norm"):
            assert torch.equal(value, expected), of
            continue
        bound = drawn[of.rsplit(".", 1)[0] + ".weight"][0].numel() ** -0.5
        assert value.abs().max() <= bound, of
        if value.numel() > 1000:
            assert value.abs().max() > 0.98 * bound, of
        test = ks_2samp(value.flatten(), expected.flatten(), method="asymp")
        assert test.pvalue > 1e-3, of


# --- what a job needs ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels", "side"), SIZES)
def test_operations(name, channels, side):
    network = made(name, channels, side)
    weights, inputs = weights_of(network), inputs_of(network)
    with FlopCounterMode(display=False) as counter:
        network.embed(weights, inputs)
    assert 3 * network.operations == counter.get_total_flops()


@pytest.mark.parametrize(("name", "channels", "side"), SIZES)
def test_activations(name, channels, side):
    """At least what a backward pass finds saved, in float32, and at most twice that."""
    network = made(name, channels, side)
    weights = {n: w.requires_grad_() for n, w in network.draw(seeded()).items()}
    inputs = inputs_of(network).float().requires_grad_()
    owned = {w.untyped_storage().data_ptr() for w in weights.values()}
    saved = {}

    def save(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            saved[storage.data_ptr()] = storage  # kept, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        network.embed(weights, inputs)
    values = sum(storage.nbytes() for storage in saved.values()) / 4 / len(inputs)
    assert values <= network.activations <= 2 * values
