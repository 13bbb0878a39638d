"""How pixel values follow the gradient: the paper's signed Adam, and Witches' Brew's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rdmdc.attacks.crafting import Crafting

MOMENTUM = 0.9  # Adam's β1: the sign of Adam's step is the sign of its first moment

Moments = dict[str, "torch.Tensor"]
"""What an optimiser keeps from one iteration to the next; nothing before the first."""


def sign_adam(
    crafting: Crafting, gradient: torch.Tensor, moments: Moments, t: int
) -> tuple[torch.Tensor, Moments]:
    """The paper's "signed Adam, equivalent to signed momentum SGD": ± step by the moment's sign.

    Optimisers give what to subtract from the pixel values, in 255ths, for a gradient at iteration
    t, and their new moments.
    """
    last = moments.get("first", torch.zeros_like(gradient))
    first = MOMENTUM * last + (1 - MOMENTUM) * gradient
    return crafting.step * first.sign(), {"first": first}


def adam_of_signs(
    crafting: Crafting, gradient: torch.Tensor, moments: Moments, t: int
) -> tuple[torch.Tensor, Moments]:
    """Witches' Brew's: Adam fed with the gradient's sign, its step × 0.1 at 3/8, 5/8 and 7/8."""
    sign, zeros = gradient.sign(), torch.zeros_like(gradient)
    first = 0.9 * moments.get("first", zeros) + 0.1 * sign
    second = 0.999 * moments.get("second", zeros) + 0.001 * sign.square()
    decays = sum(8 * t >= eighths * crafting.iterations for eighths in (3, 5, 7))
    unbiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
    step = crafting.step * 0.1**decays * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    return step, {"first": first, "second": second}


Optimiser = Callable[["Crafting", "torch.Tensor", Moments, int], tuple["torch.Tensor", Moments]]
OPTIMISERS: dict[str, Optimiser] = {f.__name__: f for f in (sign_adam, adam_of_signs)}
