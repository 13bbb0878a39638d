"""What a screen is given, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import rates
from rdmdc.models.network import Network
from rdmdc.options import Rate, option
from rdmdc.randomness import generator
from rdmdc.records import RecordError
from rdmdc.training_data import TrainingData


@dataclass(frozen=True)
class Suspects:
    """The training split as delivered, poisons in place, and what a screen may draw from.

    ``poisoned`` (N,) bool tells which images are poisons: only the oracle may look at it.
    """

    images: TrainingData
    poisoned: torch.Tensor
    network: Network
    augmentation: tuple[str, ...]
    seed: int
    device: str

    def generator(self, *purpose: int | str) -> torch.Generator:
        """A generator for one kind of draw; it does not depend on the attack."""
        return generator(self.seed, "screen", *purpose)


@dataclass(frozen=True)
class Drop:
    """How many images a screen leaves out."""

    drop: Rate = option(
        "share of each class to leave out, for instance 1.5ε, ε the poisoning rate within the class"
    )


def keep_without_top(
    scores: torch.Tensor, labels: torch.Tensor, classes: int, drop: Rate
) -> torch.Tensor:
    """Kept (N,) bool: of each class's n images all but the k = ⌈drop · n⌉ of highest score.

    scores (N,), labels (N,). Of equal scores the earlier is dropped. Raises RecordError where a
    class would be left without images.
    """
    kept = torch.ones(len(labels), dtype=torch.bool)
    for c in range(classes):
        mine = (labels == c).nonzero().squeeze(1)
        k = rates.count(drop, len(mine))
        if k >= len(mine):
            raise RecordError(
                f"drop {drop} leaves out all {len(mine)} images of class {c}; lower it"
            )
        order = scores[mine].argsort(descending=True, stable=True)
        kept[mine[order[:k]]] = False
    return kept
