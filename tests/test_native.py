"""convnet.c against float64 and against itself: other threads, other company, other sizes."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from rdmdc.estimators.sorting import sort_samples
from rdmdc.models import running
from rdmdc.models.native import convnet as native
from rdmdc.models.native import library, products, sorting
from rdmdc.models.native.products import Products
from rdmdc.models.network import KernelError
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator

pytestmark = pytest.mark.usefixtures("compiled")

# channels, side, classes, width, depth; images: a group is 8, a slice 64
SIZES = [
    ((3, 32, 4, 32, 3), 19),
    ((1, 28, 4, 16, 3), 9),
    ((3, 8, 4, 48, 3), 5),
    ((3, 32, 4, 16, 4), 7),
    ((3, 12, 4, 16, 2), 65),
    ((2, 6, 4, 16, 1), 3),
    ((5, 8, 4, 32, 2), 6),
]


WIDE = ConvNet(3, 8, 4, 16, 2)


def embed(network, weights, images, of=Products.SINGLE):
    """Embeddings by the kernels."""
    return native.embed(network, of, weights, images)


def weights_of(network, purpose="weights"):
    """Random weights whose norms do something."""
    draws = generator("native", purpose)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=draws) * name.startswith("norm")
        for name, value in network.draw(draws).items()
    }


def images_of(network, count, seed=0):
    shape = (count, network.channels, network.side, network.side)
    return torch.randn(shape, generator=generator("native images", seed))


def mattering(weights):
    """The weights that an embedding depends on: a norm takes the biases before it away."""
    return [n for n in weights if n[:4] == "norm" or (n[:4] == "conv" and n.endswith("weight"))]


def gradients(embed, weights, images, by, dtype):
    """Of a weighted sum of the embeddings, by the images and by all weights that matter."""
    leaves = {name: value.detach().to(dtype).requires_grad_() for name, value in weights.items()}
    images = images.detach().to(dtype).requires_grad_()
    names = mattering(weights)
    loss = (embed(leaves, images) * by.to(dtype)).sum()
    made = torch.autograd.grad(loss, [images, *(leaves[name] for name in names)])
    return dict(zip(["images", *names], made, strict=True))


def away_from_kinks(network, weights, count):
    """Images none of whose ReLUs is so near zero that rounding decides it."""
    found, seed = [], 0
    while len(found) < count:
        image, seed = images_of(network, 1, seed), seed + 1
        x, nearest = image.double(), []
        for b in range(network.depth):
            w = {n: weights[f"{n}.weight"].double() for n in (f"conv{b}", f"norm{b}")}
            padding = 1 + (network.padded - network.side) // 2 if b == 0 else 1
            x = torch.nn.functional.conv2d(x, w[f"conv{b}"], padding=padding)
            shift = weights[f"norm{b}.bias"].double()
            x = torch.nn.functional.group_norm(x, network.width, w[f"norm{b}"], shift)
            nearest.append(float(x.abs().min()))
            x = torch.nn.functional.avg_pool2d(x.relu(), 2)
        if min(nearest) > 1e-6:
            found.append(image)
    return torch.cat(found)


@pytest.mark.parametrize(("sizes", "count"), SIZES)
def test_embeddings(sizes, count):
    network = ConvNet(*sizes)
    weights, images = weights_of(network), images_of(network, count)
    exact = network.embed({n: v.double() for n, v in weights.items()}, images.double())
    made = embed(network, weights, images)
    assert (made - exact).norm() < 5e-6 * exact.norm()


@pytest.mark.parametrize(("sizes", "count"), SIZES)
def test_gradients(sizes, count):
    network = ConvNet(*sizes)
    weights = weights_of(network)
    images = away_from_kinks(network, weights, count)
    by = torch.randn(count, network.features, generator=generator("by"))
    exact = gradients(network.embed, weights, images, by, torch.float64)
    made = gradients(partial(embed, network), weights, images, by, torch.float32)
    for name in exact:
        assert (made[name] - exact[name]).norm() < 3e-5 * exact[name].norm(), name


def test_bias_of_a_convolution_changes_nothing():
    network = ConvNet(3, 8, 4, 16, 2)
    weights, images = weights_of(network), images_of(network, 3)
    moved = weights | {"conv1.bias": weights["conv1.bias"] + 3}
    torch.testing.assert_close(
        network.embed(moved, images), embed(network, weights, images), rtol=1e-4, atol=1e-5
    )


def assert_each_image_depends_on_itself_alone(embed):
    """Bit for bit: embedded in parts, at another place and beside other images."""
    network = ConvNet(3, 16, 4, 32, 3)
    weights, images = weights_of(network), images_of(network, 37)
    whole = embed(network, weights, images)
    for first, last in ((0, 1), (5, 30), (36, 37)):
        assert torch.equal(embed(network, weights, images[first:last]), whole[first:last])
    other = torch.cat([50 * images[:20], images[20:]])
    assert torch.equal(embed(network, weights, other)[20:], whole[20:])


def test_an_image_depends_on_itself_alone():
    assert_each_image_depends_on_itself_alone(embed)


def test_threads_change_no_bit():
    network = ConvNet(3, 16, 4, 16, 3)
    weights, images = weights_of(network), images_of(network, 150)
    by = torch.randn(150, network.features, generator=generator("by"))

    def made():
        embeddings = embed(network, weights, images)
        own = gradients(partial(embed, network), weights, images, by, torch.float32)
        return {"embeddings": embeddings} | own

    one = made()
    torch.set_num_threads(3)
    try:
        several = made()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one[name], several[name]) for name in one)


@pytest.fixture(params=[Products.PAIRS, Products.AMX], ids=lambda of: of.name)
def halved(request):
    """Embeddings by the kernels with products of bf16; skipped where the processor has none."""
    if not library.library().has_products(request.param):
        pytest.skip(f"this processor has no products of {request.param.described}")
    return partial(embed, of=request.param)


@pytest.mark.parametrize(("sizes", "count"), SIZES)
def test_products_of_bf16_round_but_little(halved, sizes, count):
    """2^-9 a factor, enlarged by the transforms some four times and by three blocks; ReLUs at the
    edge of rounding flip, which a gradient feels more."""
    network = ConvNet(*sizes)
    weights = running.to(weights_of(network), "cpu")
    images = images_of(network, count).requires_grad_()
    exact = network.embed({n: v.double() for n, v in weights.items()}, images.double())
    made = halved(network, weights, images)
    most = 6e-3 if halved.keywords["of"] == Products.AMX else 2e-2  # AMX does not transform
    assert 1e-3 < (made - exact).norm() / exact.norm() < most
    by = torch.randn(count, network.features, generator=generator("by"))
    (wanted,) = torch.autograd.grad((exact * by).sum(), images)
    (found,) = torch.autograd.grad((made * by).sum(), images)
    assert 1e-3 < (found - wanted).norm() / wanted.norm() < 0.2


def test_products_of_bf16_keep_each_image_to_itself(halved):
    assert_each_image_depends_on_itself_alone(halved)


def test_threads_change_no_bit_of_bf16(halved):
    network = ConvNet(3, 16, 4, 32, 3)
    weights, images = weights_of(network), images_of(network, 50).requires_grad_()

    def made():
        embeddings = halved(network, weights, images)
        return embeddings, *torch.autograd.grad(embeddings.square().sum(), images)

    one = made()
    torch.set_num_threads(3)
    try:
        several = made()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_a_pass_too_large_for_the_cache_has_the_same_bits(monkeypatch):
    network = ConvNet(3, 16, 4, 32, 3)
    weights, images = weights_of(network), images_of(network, 20).requires_grad_()
    kinds = [of for of in Products if library.library().has_products(of)]

    def made():
        return [
            torch.autograd.grad(embed(network, weights, images, of).square().sum(), images)[0]
            for of in kinds
        ]

    near = made()
    monkeypatch.setattr(native, "NEAR", 0)
    assert all(torch.equal(a, b) for a, b in zip(near, made(), strict=True))


def test_weights_that_train_are_multiplied_in_single_precision(halved):
    weights, images = weights_of(WIDE), images_of(WIDE, 3)
    assert not torch.equal(halved(WIDE, weights, images), embed(WIDE, weights, images))
    trained = {name: value.requires_grad_() for name, value in weights.items()}
    assert torch.equal(halved(WIDE, trained, images), embed(WIDE, trained, images))


@pytest.mark.parametrize(("sizes", "count"), SIZES)
def test_gradients_of_gradients_by_weights(sizes, count):
    """By images and by what the embeddings feed, of a function of all weights' gradients."""
    network = ConvNet(*sizes)
    weights = weights_of(network)
    images = away_from_kinks(network, weights, count)
    draws = generator("second")
    by = torch.randn(count, network.features, generator=draws)
    names = mattering(weights)
    along = {name: torch.randn(weights[name].shape, generator=draws) for name in names}

    def second(embed, dtype):
        leaves = {n: v.detach().to(dtype).requires_grad_() for n, v in weights.items()}
        inputs = images.to(dtype).requires_grad_()
        loss = (embed(leaves, inputs).square() * by.to(dtype)).sum()  # its gradient has embeddings
        first = torch.autograd.grad(loss, [leaves[n] for n in names], create_graph=True)
        parts = [(g * along[n].to(dtype)).sum() for n, g in zip(names, first, strict=True)]
        return torch.autograd.grad(torch.stack(parts).sum(), inputs)[0]

    exact = second(network.embed, torch.float64)
    made = second(partial(embed, network), torch.float32)
    assert (made - exact).norm() < 1e-4 * exact.norm()


def test_gradients_of_gradients_by_some_weights():
    """A weight whose gradient is not asked about stands still."""
    network = ConvNet(3, 8, 4, 16, 2)
    weights = {name: value.requires_grad_() for name, value in weights_of(network).items()}
    images = images_of(network, 3).requires_grad_()

    def second(embed):
        loss = embed(weights, images).square().sum()
        (first,) = torch.autograd.grad(loss, weights["conv1.weight"], create_graph=True)
        return torch.autograd.grad(first.square().sum(), images)[0]

    made, exact = second(partial(embed, network)), second(network.embed)
    assert (made - exact).norm() < 1e-4 * exact.norm()


def test_gradients_of_gradients_by_images_are_refused():
    network = ConvNet(3, 8, 4, 16, 1)
    images = images_of(network, 2).requires_grad_()
    embeddings = embed(network, weights_of(network), images)
    (gradient,) = torch.autograd.grad(embeddings.square().sum(), images, create_graph=True)
    with pytest.raises(KernelError, match="not differentiable once more"):
        torch.autograd.grad(gradient.sum(), images)


def test_memory_of_passes_that_overlap_is_apart():
    """A pass keeps its own until nothing refers to it, and then the next one takes it."""
    network = ConvNet(3, 8, 4, 16, 1)
    weights = weights_of(network)
    images = [images_of(network, 2, seed).requires_grad_() for seed in range(3)]
    alone = [torch.autograd.grad(embed(network, weights, x).square().sum(), x)[0] for x in images]
    passes = [embed(network, weights, x).square().sum() for x in images]
    made = [torch.autograd.grad(of, x)[0] for of, x in zip(passes, images, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(alone, made, strict=True))


@pytest.mark.parametrize(("samples", "features"), [(1, 16), (2, 32), (7, 16), (128, 48), (130, 16)])
def test_sorted_samples_are_torchs(samples, features):
    values = torch.randn(3, samples, features, generator=generator("sort", samples))
    values[0] = values[0].round()  # ties
    values[1, 0] = -torch.inf
    assert torch.equal(sorting.sort_samples(values), values.sort(dim=1).values)


def test_estimators_sort_by_the_kernels_where_they_can(compiled, monkeypatch):
    """Whole vectors of float32; elsewhere, and uncompiled, by torch."""
    seen = []
    kernel = sorting.sort_samples
    monkeypatch.setattr(sorting, "sort_samples", lambda v: seen.append(v) or kernel(v))
    fitting = torch.randn(2, 9, 16)
    others = [torch.randn(2, 9, 5), fitting.double()]
    for values in (fitting, *others):
        assert torch.equal(sort_samples(values), values.sort(dim=1).values)
    running.compiling(False, "cpu", None)
    sort_samples(fitting)
    assert [id(values) for values in seen] == [id(fitting)]


# --- when networks run by the kernels --------------------------------------------------------


def test_networks_run_by_the_kernels_once_that_is_wanted(compiled):
    weights, images = weights_of(WIDE), images_of(WIDE, 5)
    by_kernels, plain = embed(WIDE, weights, images), WIDE.embed(weights, images)
    assert not torch.equal(by_kernels, plain)
    assert running.compiled()
    assert torch.equal(running.embed_all(WIDE, weights, images), by_kernels)
    assert running.arithmetic("cpu")["compiled"] is True
    assert running.compiling(False, "cpu", WIDE) is None
    assert not running.compiled()
    torch.testing.assert_close(running.embed_all(WIDE, weights, images), plain)


def test_precision_reaches_the_kernels(compiled):
    """And what its products are of here is part of what identifies a checkpoint."""
    chosen = products.products("bfloat16")
    weights, images = weights_of(WIDE), images_of(WIDE, 5)
    assert running.compiling(True, "cpu", WIDE, "bfloat16") is None
    assert running.arithmetic("cpu")["precision"] == "bfloat16"
    assert running.arithmetic("cpu")["products"] == chosen.described
    made = running.embed_all(WIDE, weights, images)
    assert torch.equal(made, embed(WIDE, weights, images, chosen))
    assert running.compiling(True, "cpu", WIDE) is None
    assert running.arithmetic("cpu")["products"] == "float32"


def test_a_width_that_the_kernels_do_not_have(compiled):
    """The reason is told, and the network runs uncompiled."""
    narrow = ConvNet(3, 8, 4, 8, 2)
    assert running.compiling(True, "cpu", narrow) == "the ConvNet's width 8 is no multiple of 16"
    assert not running.compiled()
    weights, images = weights_of(narrow), images_of(narrow, 3)
    torch.testing.assert_close(
        running.embed_all(narrow, weights, images), narrow.embed(weights, images)
    )


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "there is no C compiler no-such-compiler"), ("false", "false fails: ")],
)
def test_a_compiler_that_is_missing_or_fails(compiled, monkeypatch, tmp_path, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.library.cache_clear()
    try:
        assert running.compiling(True, "cpu", WIDE).startswith(reason)
        assert not running.compiled()
    finally:
        library.library.cache_clear()


def test_a_cache_that_cannot_be_written(compiled, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    library.library.cache_clear()
    try:
        assert "set XDG_CACHE_HOME" in running.compiling(True, "cpu", WIDE)
    finally:
        library.library.cache_clear()


def test_a_processor_that_gains_nothing_by_bf16_keeps_to_single_precision(compiled, monkeypatch):
    class Plain:
        def __getattr__(self, name):
            return getattr(library.library(), name)

        def half_products(self):
            return 0

    monkeypatch.setattr(products, "library", Plain)
    assert running.compiling(True, "cpu", WIDE, "bfloat16") is None
    assert running.arithmetic("cpu")["products"] == "float32"
    weights, images = weights_of(WIDE), images_of(WIDE, 5)
    made = running.embed_all(WIDE, weights, images)
    assert torch.equal(made, embed(WIDE, weights, images))


def test_the_cache_is_made_once_and_by_many(tmp_path):
    """Processes that compile at once end with one library, and leave nothing else."""
    code = "from rdmdc.models.native.library import library; library()"
    command = ["env", f"XDG_CACHE_HOME={tmp_path}", sys.executable, "-c", code]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [path.suffix for path in (tmp_path / "rdmdc").iterdir()] == [".so"]
