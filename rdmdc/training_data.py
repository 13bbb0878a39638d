"""The training split as the condenser finds it: poisons in place, screened images left out."""

from __future__ import annotations

from itertools import pairwise

import torch

from rdmdc.records import LabelledImages, Normalisation, PoisonSet, RecordError, Screening


class TrainingData:
    """A class-sorted split with its poisons laid over it and a screen's choice; nothing is copied.

    Indices are those of the split, whether poisoned or left out.
    """

    def __init__(
        self,
        train: LabelledImages,
        poisons: PoisonSet | None = None,
        screening: Screening | None = None,
    ) -> None:
        """Raises RecordError where the poisons or the screening do not fit the split."""
        if poisons is not None:
            poisons.check(train)
        if screening is not None:
            screening.check(train)
        self.train, self.poisons = train, poisons
        self.labels = train.labels
        self._poison_at = torch.full((len(train.labels),), -1, dtype=torch.int32)
        if poisons is not None:
            self._poison_at[poisons.indices] = torch.arange(len(poisons.indices), dtype=torch.int32)
        starts = [*train.class_start().tolist(), len(train.labels)]
        everything = torch.arange(len(train.labels))
        self._indices = [
            everything[start:end]
            if screening is None
            else everything[start:end][screening.kept[start:end]]
            for start, end in pairwise(starts)
        ]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, in the order of their labels."""
        return self.train.class_names

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of the clean training split."""
        return self.train.normalisation

    @property
    def shape(self) -> tuple[int, ...]:
        """C, H, W of an image."""
        return tuple(self.train.pixels.shape[1:])

    def indices(self, label: int) -> torch.Tensor:
        """Indices (n,) of the images of a class that are kept."""
        return self._indices[label]

    def counts(self) -> list[int]:
        """The number of images of each class that are kept."""
        return [len(indices) for indices in self._indices]

    def poisoned(self, indices: torch.Tensor) -> torch.Tensor:
        """Which of these images are poisons: (n,) bool."""
        return self._poison_at[indices] >= 0

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at some indices as they are delivered: (n, C, H, W) uint8."""
        pixels, which = self.train.pixels[indices], self._poison_at[indices].long()
        poisoned = which >= 0
        if self.poisons is not None and bool(poisoned.any()):
            pixels[poisoned] = self.poisons.pixels[which[poisoned]]
        return pixels

    def same_classes(self, clean: TrainingData) -> frozenset[int]:
        """Classes without poisons of which the same images are kept as of the ``clean`` split."""
        return frozenset(
            c
            for c, own in enumerate(self._indices)
            if torch.equal(own, clean.indices(c)) and not bool(self.poisoned(own).any())
        )

    def draw(
        self, label: int, count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``count`` images of a class without replacement: pixels (count, C, H, W), poisoned."""
        kept = self._indices[label]
        indices = kept[torch.randperm(len(kept), generator=generator)[:count]]
        return self.pixels(indices), self.poisoned(indices)

    def require(self, count: int, option: str) -> None:
        """Raise RecordError, naming the option, where a class keeps fewer than ``count`` images."""
        for name, number in zip(self.class_names, self.counts(), strict=True):
            if number < count:
                raise RecordError(
                    f"{option} is {count}, but class {name!r} has {number} images; lower it"
                )
