"""What a condenser is given, and how its estimators are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from rdmdc.estimators.estimate import Estimate, Others
from rdmdc.models.network import Network
from rdmdc.plugins import Plugin
from rdmdc.randomness import generator
from rdmdc.records import SyntheticSet
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
class CleanCase:
    """What the same task came to without an attack: each method's set and trace, and the classes
    whose images the attack leaves as they are."""

    same: frozenset[int]
    condensed: Mapping[str, tuple[SyntheticSet, pd.DataFrame]]


@dataclass(frozen=True)
class Task:
    """What to condense, for a panel of methods that differ in their estimator alone.

    ``methods`` maps a method's name to its calibration, None where the condenser matches no means.
    Nothing computed for one method mixes with another's, so that a method's set is the same bits
    alone and in any panel. Draws name neither the data's poison nor the method. ``clean`` is given
    where a class-by-class condenser can take over the classes that an attack leaves as they are.
    """

    data: TrainingData
    network: Network
    augmentation: tuple[str, ...]
    methods: Mapping[str, Calibration | None]
    seed: int
    run: int
    device: str
    clean: CleanCase | None = None

    def classes_of(self, method: str) -> list[int]:
        """The classes that a class-by-class condenser has to condense for a method.

        All of them where its estimator compares classes, or where no clean case is known.
        """
        everything = range(len(self.data.class_names))
        chosen = self.methods[method]
        across = chosen is not None and chosen.estimator.facts["across_classes"]
        if self.clean is None or across:
            return list(everything)
        return [c for c in everything if c not in self.clean.same]


def sample_others(vectors: torch.Tensor, count: int, generator: torch.Generator) -> Others:
    """``count`` rows of vectors (C, N, D), drawn from all classes, each centred by its class."""
    classes, n = vectors.shape[:2]
    chosen = torch.randperm(classes * n, generator=generator)[:count].to(vectors.device)
    rows = vectors.flatten(0, 1)[chosen] - vectors.mean(1)[chosen // n]
    return Others(rows, chosen // n)
