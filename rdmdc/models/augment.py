"""Differentiable Siamese augmentation (DSA; Zhao and Bilen 2021b), many groups in one batch.

A group is what shares one draw: in condensation a class's real images and its synthetic ones
(A_{w_c} in Alg. 3), in training a single image. Sizes and probabilities are those of the public
DM implementation's strategy; it draws one operation per group. G groups of n inputs each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import torch

SHIFT = 0.125  # crop: largest shift, as a share of the side
CUTOUT = 0.5  # cutout: side of the square, as a share of the side
SCALE = 1.2  # scale: each axis by a factor uniform in [1/1.2, 1.2]
ROTATION = 15 / 180 * pi  # rotate: largest angle
UNIFORMS = 3  # the most numbers that an operation uses


@dataclass(frozen=True)
class Draw:
    """One operation and its random numbers for each group: uniforms (G, 3) in [0, 1)."""

    operations: tuple[str, ...]
    uniforms: torch.Tensor


def draw(strategy: Sequence[str], groups: int, generator: torch.Generator, *, shared: bool) -> Draw:
    """Draw for so many groups; ``shared``: one operation for all, still with separate numbers."""
    uniforms = torch.rand(groups, UNIFORMS, generator=generator)
    if not strategy:
        return Draw(("identity",) * groups, uniforms)
    chosen = torch.randint(len(strategy), (1 if shared else groups,), generator=generator)
    return Draw(tuple(strategy[int(i)] for i in chosen.expand(groups)), uniforms)


def augment(inputs: torch.Tensor, draws: Draw) -> torch.Tensor:
    """Apply each group's draw to inputs (G, n, C, H, W), differentiably."""
    uniforms = draws.uniforms.to(inputs.device)
    if len(set(draws.operations)) == 1:
        return OPERATIONS[draws.operations[0]](inputs, uniforms)
    parts = zip(draws.operations, inputs.split(1), uniforms.split(1), strict=True)
    return torch.cat([OPERATIONS[name](group, numbers) for name, group, numbers in parts])


def identity(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Nothing: what an empty strategy does."""
    return inputs


def color(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Brightness ± 0.5, then saturation × [0, 2), then contrast × [0.5, 1.5), in that order."""
    brightness, saturation, contrast = uniforms.T[:, :, None, None, None, None].to(inputs.dtype)
    bright = inputs + (brightness - 0.5)
    grey = bright.mean(2, keepdim=True)
    saturated = (bright - grey) * (2 * saturation) + grey
    level = saturated.mean((2, 3, 4), keepdim=True)
    return (saturated - level) * (contrast + 0.5) + level


def crop(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Shift by whole pixels, up to 12.5 % of the side each way; zeros come in."""
    positions = []
    for side, u in zip(inputs.shape[-2:], uniforms.T, strict=False):
        most = int(side * SHIFT + 0.5)
        shift = (u * (2 * most + 1)).floor() - most
        positions.append(_pixels(inputs, side) + shift[:, None])
    return _resample(inputs, *positions)


def flip(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Mirror left and right with probability 0.5."""
    rows, columns = (_pixels(inputs, side) for side in inputs.shape[-2:])
    mirrored = torch.where(uniforms[:, :1] < 0.5, columns.flip(0), columns)
    return _resample(inputs, rows.expand(len(uniforms), -1), mirrored)


def scale(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Zoom about the centre, each axis by its own factor in [1/1.2, 1.2], bilinear."""
    positions = []
    for side, u in zip(inputs.shape[-2:], uniforms.T, strict=False):
        factor = u * (SCALE - 1 / SCALE) + 1 / SCALE
        centre = (side - 1) / 2
        positions.append((_pixels(inputs, side) - centre) * factor[:, None] + centre)
    return _resample(inputs, *positions)


def rotate(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Rotate about the centre by up to 15° either way, bilinear, zeros outside."""
    groups, n = inputs.shape[:2]
    angle = (uniforms[:, 0] * 2 - 1) * ROTATION
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(groups, 2, 3).to(inputs.dtype)
    theta = theta.repeat_interleave(n, 0)
    flat = inputs.flatten(0, 1)
    grid = torch.nn.functional.affine_grid(theta, list(flat.shape), align_corners=False)
    return torch.nn.functional.grid_sample(flat, grid, align_corners=False).view_as(inputs)


def cutout(inputs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Zero a square of half the side, its centre anywhere; it may hang over the edge."""
    inside = []
    for side, u in zip(inputs.shape[-2:], uniforms.T, strict=False):
        length = int(side * CUTOUT + 0.5)
        centre = (u * (side + 1 - length % 2)).floor()[:, None]
        pixels = _pixels(inputs, side)
        first = centre - length // 2
        inside.append((pixels >= first) & (pixels < first + length))
    hole = inside[0][:, None, None, :, None] & inside[1][:, None, None, None, :]
    return inputs * ~hole


def _pixels(inputs: torch.Tensor, side: int) -> torch.Tensor:
    return torch.arange(side, device=inputs.device, dtype=inputs.dtype)


def _resample(inputs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Sample each group at the positions rows (G, H) × columns (G, W), bilinear, zeros outside.

    An axis-aligned warp is A · x · Bᵀ with interpolation matrices; at whole-pixel positions they
    hold zeros and ones, so that shifts and flips are exact.
    """
    down, across = (
        (1 - (positions[:, :, None] - _pixels(inputs, positions.shape[1])).abs())
        .clamp(min=0)
        .to(inputs.dtype)
        for positions in (rows, columns)
    )
    return down[:, None, None] @ inputs @ across.transpose(1, 2)[:, None, None]


OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    f.__name__: f for f in (identity, color, crop, flip, scale, rotate, cutout)
}
