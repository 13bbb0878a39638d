"""How synthetic images start: from noise or from real images (§5.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

Purpose = tuple[int | str, ...]


def noise(data: TrainingData, ipc: int, purpose: Purpose) -> torch.Tensor:
    """Start from N(0, I) in normalised space (Alg. 3): inputs (C·M, C, H, W)."""
    shape = (len(data.class_names) * ipc, *data.shape)
    return torch.randn(shape, generator=generator(*purpose))


def real(data: TrainingData, ipc: int, purpose: Purpose) -> torch.Tensor:
    """Start from real images of each class, poisons among them, as §5.1 warns.

    Raises RecordError where a class has fewer than ``ipc`` images.
    """
    data.require(ipc, "ipc with a real start")
    drawn = [data.draw(c, ipc, generator(*purpose, c))[0] for c in range(len(data.class_names))]
    return data.normalisation.normalise(torch.cat(drawn))


START: dict[str, Callable[[TrainingData, int, Purpose], torch.Tensor]] = {
    f.__name__: f for f in (noise, real)
}
