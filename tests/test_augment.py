"""Each operation against a plain one; groups share a draw and do not see each other."""

from fractions import Fraction
from math import cos, floor, pi, sin

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from rdmdc.models.augment import OPERATIONS, Draw, augment, draw

LAST = 1 - 2**-24  # the largest number that torch.rand gives
STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
SHAPES = [(2, 3, 8, 8), (1, 1, 6, 10), (2, 3, 11, 5), (1, 3, 32, 32)]  # n, C, H, W


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs_of(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(), dtype=dtype)


# --- plain operations: numpy, one group (n, C, H, W), its uniforms as Python floats -----------


def identity(x, u):
    return x


def color(x, u):
    x = np.stack([image + u[0] - 0.5 for image in x])
    grey = x.sum(1, keepdims=True) / x.shape[1]
    x = grey + 2 * u[1] * (x - grey)
    return np.stack([(0.5 + u[2]) * (image - np.mean(image)) + np.mean(image) for image in x])


def crop(x, u):
    """A window of a zero-padded copy, up to 12.5 % of the side off its middle."""
    h, w = x.shape[-2:]
    most = [floor(side / 8 + 0.5) for side in (h, w)]
    top, left = (floor(Fraction(v) * (2 * m + 1)) for v, m in zip(u, most, strict=False))
    padded = np.pad(x, [(0, 0), (0, 0), (most[0],) * 2, (most[1],) * 2])
    return padded[:, :, top : top + h, left : left + w]


def flip(x, u):
    return x[..., ::-1] if u[0] < 0.5 else x


def sampled(x, where):
    """Output (i, j) is the input at where(y, x), bilinear between pixels, zero outside.

    Coordinates run from -1 to 1 over the image's outer edges (align_corners=False).
    """
    h, w = x.shape[-2:]
    out = np.zeros_like(x)
    for i in range(h):
        for j in range(w):
            y_to, x_to = where((2 * i + 1) / h - 1, (2 * j + 1) / w - 1)
            row, column = ((y_to + 1) * h - 1) / 2, ((x_to + 1) * w - 1) / 2
            for r in (floor(row), floor(row) + 1):
                for c in (floor(column), floor(column) + 1):
                    if 0 <= r < h and 0 <= c < w:
                        out[..., i, j] += x[..., r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return out


def scale(x, u):
    y_factor, x_factor = (1 / 1.2 + v * (1.2 - 1 / 1.2) for v in u[:2])
    return sampled(x, lambda y_at, x_at: (y_at * y_factor, x_at * x_factor))


def rotate(x, u):
    a = (2 * u[0] - 1) * 15 * pi / 180
    return sampled(x, lambda y, x: (sin(a) * x + cos(a) * y, cos(a) * x - sin(a) * y))


def cutout(x, u):
    h, w = x.shape[-2:]
    out, sizes = x.copy(), [floor(side / 2 + 0.5) for side in (h, w)]
    # an even hole's centre may lie on the far edge too
    places = [side + (size % 2 == 0) for side, size in zip((h, w), sizes, strict=True)]
    top, left = (
        floor(Fraction(v) * n) - size // 2 for v, n, size in zip(u, places, sizes, strict=False)
    )
    for i in range(top, top + sizes[0]):
        for j in range(left, left + sizes[1]):
            if 0 <= i < h and 0 <= j < w:
                out[..., i, j] = 0
    return out


PLAIN = {f.__name__: f for f in (identity, color, crop, flip, scale, rotate, cutout)}


# --- each operation --------------------------------------------------------------------------

CORNERS = [(a, b, c) for a in (0, LAST) for b in (0, LAST) for c in (0, LAST)]
INSIDE = [*torch.rand(6, 3, generator=seeded(5)).tolist(), [0.5, 0.5, 0.5], [0.4999, 0.1, 0.9]]


def test_every_operation_is_tested():
    assert list(PLAIN) == list(OPERATIONS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_the_plain_one(name, shape):
    """All groups at once, extreme and ordinary numbers; whole-pixel operations exactly."""
    uniforms = CORNERS + INSIDE if shape[-1] < 32 else CORNERS[:1] + CORNERS[-1:] + INSIDE[:2]
    groups = inputs_of(len(uniforms), *shape)
    made = OPERATIONS[name](groups, torch.tensor(uniforms, dtype=torch.float64))
    assert made.shape == groups.shape
    for group, x, u in zip(made.numpy(), groups.numpy(), uniforms, strict=True):
        if name in ("identity", "crop", "flip", "cutout"):
            assert np.array_equal(group, PLAIN[name](x, u)), u
        else:
            np.testing.assert_allclose(group, PLAIN[name](x, u), atol=1e-12, err_msg=str(u))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_in_single_precision(name):
    """The draw's numbers are float32, whatever the inputs: sizes and places still agree."""
    uniforms = torch.tensor(CORNERS + INSIDE)
    groups = inputs_of(len(uniforms), 2, 3, 16, 16, dtype=torch.float32)
    made = OPERATIONS[name](groups, uniforms)
    for group, x, u in zip(made, groups, uniforms, strict=True):
        expected = PLAIN[name](x.double().numpy(), u.double().tolist())
        np.testing.assert_allclose(group, expected, atol=2e-5)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(name, dtype):
    groups = inputs_of(2, 2, 3, 8, 8).to(dtype)
    assert OPERATIONS[name](groups, torch.rand(2, 3, generator=seeded())).dtype == dtype


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradient(name):
    uniforms = torch.tensor([[0.2, 0.7, 0.4], [0.9, 0.3, 0.1]], dtype=torch.float64)
    groups = inputs_of(2, 2, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: OPERATIONS[name](x, uniforms), groups)


def test_gradient_of_a_mixed_batch():
    draws = Draw(tuple(OPERATIONS)[::-1], torch.rand(7, 3, generator=seeded()))
    groups = inputs_of(7, 1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, draws), groups)


def ramps(side):
    """Two images in one group: their values are the row and the column of the pixel."""
    rows, columns = torch.meshgrid(*[torch.arange(side).double()] * 2, indexing="ij")
    return torch.stack([rows, columns])[None, :, None]


def slopes(name, side=32):
    """The changes of the sampled row and column per pixel at the middle, over 401 draws."""
    line = torch.linspace(0, LAST, 401, dtype=torch.float64)
    uniforms = torch.stack([line, line.flip(0), line], 1)
    x = OPERATIONS[name](ramps(side).expand(401, -1, -1, -1, -1), uniforms)[:, :, 0]
    mid = side // 2
    return x[:, 0, mid + 1, mid] - x[:, 0, mid, mid], x[:, 1, mid + 1, mid] - x[:, 1, mid, mid], x


def test_range_of_scale():
    down = slopes("scale")[0]
    assert float(down.min()) == pytest.approx(1 / 1.2, abs=1e-6)
    assert float(down.max()) == pytest.approx(1.2, abs=1e-6)


def test_range_of_rotate():
    down, across, _ = slopes("rotate")
    degrees = torch.atan2(across, down) * 180 / pi
    assert float(degrees.abs().max()) == pytest.approx(15, abs=1e-4)
    assert float(degrees.mean()) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(down**2 + across**2, torch.ones(401, dtype=torch.float64))


@pytest.mark.parametrize(("side", "most"), [(28, 4), (32, 4), (128, 16), (3, 0)])
def test_range_of_crop(side, most):
    """Every whole shift up to 12.5 % is as likely as any other."""
    shifts = [float(x[0, side // 2, side // 2]) - side // 2 for x in slopes("crop", side)[2]]
    counts = {shift: shifts.count(shift) for shift in range(-most, most + 1)}
    assert sum(counts.values()) == 401
    assert max(counts.values()) - min(counts.values()) <= 1


def test_range_of_cutout():
    """A hole of at most half the side each way, at least a quarter of it inside, all alike."""
    line = torch.linspace(0, LAST, 33)
    uniforms = torch.cartesian_prod(line, line, line[:1])
    holes = OPERATIONS["cutout"](
        torch.ones(1, 1, 1, 32, 32).expand(33**2, -1, -1, -1, -1), uniforms
    )
    heights = 32 - holes.amax(-1).sum((1, 2, 3))
    assert int(holes.eq(0).sum((1, 2, 3, 4)).max()) == 16 * 16
    assert not holes[0, ..., :8, :8].any()
    assert holes[0].sum() == 32 * 32 - 8 * 8
    assert heights.max() <= 16


def test_range_of_color():
    """Brightness ± 0.5, saturation 0 to 2, contrast 0.5 to 1.5, each with the others neutral."""
    x = inputs_of(1, 1, 3, 4, 4)
    grey, level = x.mean(2, keepdim=True), x.mean()
    for at, expected in [
        ((0, 0.5, 0.5), x - 0.5),
        ((LAST, 0.5, 0.5), x + 0.5),
        ((0.5, 0, 0.5), grey.expand_as(x)),
        ((0.5, LAST, 0.5), 2 * x - grey),
        ((0.5, 0.5, 0), (x + level) / 2),
        ((0.5, 0.5, LAST), 1.5 * x - level / 2),
    ]:
        made = OPERATIONS["color"](x, torch.tensor([at], dtype=torch.float64))
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


# --- groups ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGY)
def test_siamese(name):
    """One transformation within a group, another beside it, none depends on the company."""
    uniforms = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.7, 0.8]])
    image, other = inputs_of(2, 3, 16, 16)
    draws = Draw((name, name), uniforms)
    made = augment(torch.stack([torch.stack([image, image, other])] * 2), draws)
    assert torch.equal(made[:, 0], made[:, 1])
    assert not torch.allclose(made[0, 0], made[1, 0])
    assert not torch.allclose(made[0, 0], made[0, 2])
    alone = augment(torch.stack([image[None]] * 2), draws)
    torch.testing.assert_close(alone[:, 0], made[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 64])
def test_mixed_batch_is_each_group_alone(n):
    operations = tuple(OPERATIONS) * 3
    draws = Draw(operations, torch.rand(21, 3, generator=seeded(1)))
    groups = inputs_of(21, n, 3, 32, 32, dtype=torch.float32)
    before = groups.clone()
    together = augment(groups, draws)
    assert torch.equal(groups, before)
    for g, name in enumerate(operations):
        alone = augment(groups[g : g + 1], Draw((name,), draws.uniforms[g : g + 1]))
        assert torch.equal(together[g], alone[0]), name


# --- drawing ---------------------------------------------------------------------------------


def test_operations_and_numbers_are_uniform():
    draws = draw(STRATEGY, 6000, seeded(), shared=False)
    counts = [draws.operations.count(name) for name in STRATEGY]
    assert sum(counts) == 6000
    assert chisquare(counts).pvalue > 1e-3
    assert draws.uniforms.shape == (6000, 3)
    for column in draws.uniforms.T.double().numpy():
        assert kstest(column, "uniform").pvalue > 1e-3
    # what is drawn says nothing of the numbers
    first = draws.uniforms[[name == "flip" for name in draws.operations], 0].double().numpy()
    assert kstest(first, "uniform").pvalue > 1e-3


def test_shared_draw_has_one_operation_and_separate_numbers():
    batches = [draw(STRATEGY, 4, seeded(seed), shared=True) for seed in range(300)]
    assert all(len(b.operations) == 4 and len(set(b.operations)) == 1 for b in batches)
    assert all(len(b.uniforms.unique(dim=0)) == 4 for b in batches)
    assert chisquare([sum(b.operations[0] == n for b in batches) for n in STRATEGY]).pvalue > 1e-3


@pytest.mark.parametrize("shared", [False, True])
def test_same_generator_same_draw(shared):
    one, other = (draw(STRATEGY, 5, seeded(3), shared=shared) for _ in range(2))
    assert one.operations == other.operations
    assert torch.equal(one.uniforms, other.uniforms)


@pytest.mark.parametrize("shared", [False, True])
def test_empty_strategy_changes_nothing(shared):
    draws = draw((), 4, seeded(), shared=shared)
    groups = inputs_of(4, 2, 3, 8, 8)
    assert draws.operations == ("identity",) * 4
    assert torch.equal(augment(groups, draws), groups)
