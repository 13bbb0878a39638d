"""Adam as a function: what DD, KIP and factorised sets descend by."""

from __future__ import annotations

from collections.abc import Mapping

import torch

FIRST, SECOND, SMALLEST = 0.9, 0.999, 1e-8  # Kingma and Ba 2015

Tensors = dict[str, "torch.Tensor"]


def adam(
    values: Mapping[str, torch.Tensor],
    gradients: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    step: int,
    rate: float,
) -> tuple[Tensors, Tensors]:
    """Values after their ``step``-th step, counted from one, and the moments for the next one.

    The first step is given no moments.
    """
    changed: Tensors = {}
    kept: Tensors = {}
    for name, value in values.items():
        gradient, zero = gradients[name], torch.zeros_like(value)
        mean = FIRST * moments.get(f"{name}.mean", zero) + (1 - FIRST) * gradient
        square = SECOND * moments.get(f"{name}.square", zero) + (1 - SECOND) * gradient.square()
        spread = (square / (1 - SECOND**step)).sqrt() + SMALLEST
        changed[name] = value - rate * mean / (1 - FIRST**step) / spread
        kept |= {f"{name}.mean": mean, f"{name}.square": square}
    return changed, kept
