"""What a condenser is given, and how its estimators are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rdmdc.estimators.estimate import Estimate, Others
from rdmdc.models.network import Network
from rdmdc.plugins import Plugin
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

Purpose = tuple[int | str, ...]


@dataclass(frozen=True)
class Calibration:
    """An estimator with its options: how one method of a panel estimates class means (Alg. 3)."""

    estimator: Plugin
    options: Any

    def __call__(
        self,
        vectors: torch.Tensor,
        classes: Sequence[int],
        purpose: Purpose,
        others: Others | None = None,
    ) -> Estimate:
        """Estimate the means of vectors (B, N, D) of some classes, with draws for the purpose."""
        generators = [generator(*purpose, "estimate", c) for c in classes]
        if self.estimator.facts["across_classes"]:
            return self.estimator(vectors, generators, self.options, others, classes)
        return self.estimator(vectors, generators, self.options)


@dataclass(frozen=True)
class Task:
    """What to condense, for a panel of methods that differ in their estimator alone.

    ``methods`` maps a method's name to its calibration, None where the condenser matches no means.
    Nothing computed for one method mixes with another's, so that a method's set is the same bits
    alone and in any panel. Draws name neither the data's poison nor the method.
    """

    data: TrainingData
    network: Network
    augmentation: tuple[str, ...]
    methods: Mapping[str, Calibration | None]
    seed: int
    run: int
    device: str


def sample_others(vectors: torch.Tensor, count: int, generator: torch.Generator) -> Others:
    """``count`` rows of vectors (C, N, D), drawn from all classes, each centred by its class."""
    classes, n = vectors.shape[:2]
    chosen = torch.randperm(classes * n, generator=generator)[:count].to(vectors.device)
    rows = vectors.flatten(0, 1)[chosen] - vectors.mean(1)[chosen // n]
    return Others(rows, chosen // n)
