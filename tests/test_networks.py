"""The ConvNet against a forward pass written in numpy, its random weights against torch.nn's."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from scipy.stats import ks_2samp

from rdmdc.models import running
from rdmdc.models.network import NetworkError
from rdmdc.networks.convnet import ConvNet

# channels, side, classes, width, depth; the padding of the first block
CASES = [
    ((3, 32, 10, 8, 3), 1),
    ((1, 28, 10, 6, 3), 3),  # padded to 32
    ((3, 64, 5, 4, 4), 1),
    ((2, 8, 3, 5, 3), 1),  # down to a single pixel
    ((3, 12, 4, 3, 1), 1),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network, seed=0):
    """A draw with norms that are neither one nor zero, as after training."""
    weights = network.draw(seeded(seed))
    noise = {n: 0.3 * torch.randn(w.shape, generator=seeded(9)) for n, w in weights.items()}
    return {n: w + noise[n] if n.startswith("norm") else w for n, w in weights.items()}


def inputs_of(network, n):
    return torch.randn(n, network.channels, network.side, network.side, generator=seeded(1))


def embedding(weights, image, padding, depth):
    """Φ of one image (C, H, W), in float64."""
    x = image
    for block in range(depth):
        kernels, bias, gain, offset = (
            weights[f"{kind}{block}.{part}"]
            for kind, part in [
                ("conv", "weight"),
                ("conv", "bias"),
                ("norm", "weight"),
                ("norm", "bias"),
            ]
        )
        x = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
        padding = 1
        maps = []
        for kernel, b, g, o in zip(kernels, bias, gain, offset, strict=True):
            made = correlate(x, kernel, mode="valid")[0] + b
            made = (made - made.mean()) / np.sqrt(made.var() + 1e-5) * g + o
            made = np.maximum(made, 0)
            maps.append(made[::2, ::2] + made[1::2, ::2] + made[::2, 1::2] + made[1::2, 1::2])
        x = np.stack(maps) / 4
    return x.reshape(-1)


def exact(network, weights, images, padding):
    weights = {name: value.detach().double().numpy() for name, value in weights.items()}
    embeddings = [embedding(weights, i, padding, network.depth) for i in images.double().numpy()]
    embeddings = np.stack(embeddings)
    return embeddings, embeddings @ weights["linear.weight"].T + weights["linear.bias"]


def assert_close(made, expected, tolerance):
    error = np.linalg.norm(made.detach().double().numpy() - expected)
    assert error <= tolerance * np.linalg.norm(expected)


# --- forward and backward --------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "padding"), CASES)
def test_forward(sizes, padding):
    network = ConvNet(*sizes)
    weights, images = weights_of(network), inputs_of(network, 3)
    embeddings, logits = exact(network, weights, images, padding)
    assert embeddings.shape == (3, network.features)
    assert_close(network.embed(weights, images), embeddings, 1e-5)
    assert_close(network.logits(weights, images), logits, 1e-5)
    assert_close(running.embed_all(network, weights, images), embeddings, 1e-5)
    assert_close(running.logits_all(network, weights, images), logits, 1e-5)


def test_gradient():
    """Of a weighted sum of the embeddings, against differences of the exact forward pass."""
    network = ConvNet(2, 8, 3, 4, 2)
    weights, images = weights_of(network), inputs_of(network, 3)
    direction = torch.randn(images.shape, generator=seeded(3))
    weighting = torch.randn(3, network.features, generator=seeded(2))
    step = 1e-6

    def value(inputs, changed):
        return (exact(network, changed, inputs, 1)[0] * weighting.double().numpy()).sum()

    x = images.clone().requires_grad_()
    tracked = {n: w.clone().requires_grad_(not n.startswith("linear")) for n, w in weights.items()}
    (network.embed(tracked, x) * weighting).sum().backward()
    ahead, behind = (images.double() + sign * step * direction.double() for sign in (1, -1))
    slope = (value(ahead, weights) - value(behind, weights)) / (2 * step)
    assert float((x.grad * direction).sum()) == pytest.approx(slope, rel=1e-4)
    for name in ("conv0.weight", "conv1.weight", "conv1.bias", "norm0.weight", "norm1.bias"):
        along = torch.randn(weights[name].shape, generator=seeded(4))
        near = [weights | {name: weights[name].double() + s * step * along} for s in (1, -1)]
        slope = (value(images, near[0]) - value(images, near[1])) / (2 * step)
        made = float((tracked[name].grad * along).sum())
        assert made == pytest.approx(slope, rel=1e-3, abs=1e-4), name


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "width", "depth", "features"),
    [(32, 128, 3, 2048), (28, 128, 3, 2048), (64, 128, 4, 2048), (64, 32, 3, 2048), (8, 5, 3, 5)],
)
def test_features(side, width, depth, features):
    network = ConvNet(1, side, 2, width, depth)
    assert network.features == features
    embedded = network.embed(network.draw(seeded()), torch.zeros(1, 1, side, side))
    assert embedded.shape == (1, features)


@pytest.mark.parametrize(("side", "depth"), [(31, 3), (27, 3), (5, 2), (4, 3), (1, 1), (28, 6)])
def test_network_that_does_not_fit(side, depth):
    fault = f"the ConvNet's depth {depth} does not fit images of side {side}; .* {2**depth} divides"
    with pytest.raises(NetworkError, match=fault):
        ConvNet(3, side, 10, 8, depth)


# --- random weights --------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 32, 10, 64, 3), (1, 28, 5, 32, 2)])
def test_initialisation_is_torchs_default(sizes):
    """Names, shapes, bounds and the whole distribution of torch.nn's layers."""
    network = ConvNet(*sizes)
    drawn = network.draw(seeded())
    fan_ins = [network.channels, *[network.width] * (network.depth - 1)]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layers = {
            f"{kind}{block}": layer
            for block, fan_in in enumerate(fan_ins)
            for kind, layer in (
                ("conv", torch.nn.Conv2d(fan_in, network.width, 3)),
                ("norm", torch.nn.GroupNorm(network.width, network.width)),
            )
        }
        layers["linear"] = torch.nn.Linear(network.features, network.classes)
    theirs = {f"{n}.{p}": v for n, layer in layers.items() for p, v in layer.named_parameters()}
    assert drawn.keys() == theirs.keys()
    for name, value in drawn.items():
        expected = theirs[name].detach()
        assert value.shape == expected.shape
        if name.startswith("norm"):
            assert torch.equal(value, expected)
            continue
        fan_in = drawn[name.split(".")[0] + ".weight"][0].numel()
        assert value.abs().max() <= fan_in**-0.5
        assert expected.abs().max() <= fan_in**-0.5
        if value.numel() > 1000:
            assert value.abs().max() > 0.99 * fan_in**-0.5
        assert ks_2samp(value.flatten(), expected.flatten()).pvalue > 1e-3, name


def test_same_generator_same_weights():
    network = ConvNet(3, 16, 4, 8, 2)
    one, same, other = (network.draw(seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if "norm" not in name)


def test_to_keeps_values():
    weights = weights_of(ConvNet(3, 16, 4, 8, 2))
    moved = running.to(weights, "cpu")
    assert moved.keys() == weights.keys()
    assert all(torch.equal(moved[name], weights[name]) for name in weights)
    assert moved["conv1.weight"].is_contiguous(memory_format=torch.channels_last)


# --- many inputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, running.CHUNK["cpu"], 2 * running.CHUNK["cpu"] + 5])
@pytest.mark.parametrize("sizes", [(3, 16, 4, 8, 2), (1, 28, 4, 8, 3)])
def test_chunked_is_unchunked(n, sizes):
    network = ConvNet(*sizes)
    weights = running.to(weights_of(network), "cpu")
    images = inputs_of(network, n)
    whole, logits = network.embed(weights, images), network.logits(weights, images)
    embedded, scored = (
        f(network, weights, images.requires_grad_())
        for f in (running.embed_all, running.logits_all)
    )
    torch.testing.assert_close(embedded, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scored, logits, rtol=1e-5, atol=1e-5)
    assert not embedded.requires_grad
    assert not scored.requires_grad


@pytest.mark.parametrize("function", [running.embed_all, running.logits_all])
def test_embeddings_do_not_depend_on_other_chunks(function):
    """Bit for bit, whatever follows, however much of it."""
    network = ConvNet(3, 16, 4, 8, 2)
    weights = running.to(weights_of(network), "cpu")
    first, rest = 2 * running.CHUNK["cpu"], running.CHUNK["cpu"] + 3
    images = inputs_of(network, first + rest)
    alone = function(network, weights, images[:first])
    followed = function(network, weights, images)
    other = function(network, weights, torch.cat([images[:first], 50 * images[first:]]))
    assert torch.equal(alone, followed[:first])
    assert torch.equal(alone, other[:first])
    moved = function(network, weights, images.roll(running.CHUNK["cpu"], 0))
    assert torch.equal(moved[running.CHUNK["cpu"] : running.CHUNK["cpu"] + first], alone)


def test_memory_order_of_inputs_does_not_matter():
    network = ConvNet(3, 16, 4, 8, 2)
    weights, images = weights_of(network), inputs_of(network, 5)
    expected = network.embed(weights, images)
    other = images.contiguous(memory_format=torch.channels_last)
    for changed in (weights, running.to(weights, "cpu")):
        torch.testing.assert_close(network.embed(changed, other), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "each", "expected"), [(7, 10, 4), (10, 50, 2), (200, 1, 50), (3, 200, 1), (70, 1, 35)]
)
def test_gradient_chunks_are_even(count, each, expected):
    assert running.even_chunk(count, each, "cpu") == expected


def test_uncompiled_in_bf16():
    """Convolutions in bf16, near single precision and not it; float32 comes out."""
    network, inputs = ConvNet(3, 16, 4, 32, 3), torch.randn(9, 3, 16, 16)
    weights = network.draw(torch.Generator().manual_seed(0))
    exact = network.embed(weights, inputs)
    try:
        running.compiling(False, "cpu", None, "bfloat16")
        made = running.embed(network, weights, inputs, 4)
    finally:
        running.compiling(False, "cpu", None)
    assert made.dtype == torch.float32
    assert 1e-4 < (made - exact).norm() / exact.norm() < 2e-2
    assert torch.allclose(running.embed(network, weights, inputs, 4), exact, atol=1e-5)
