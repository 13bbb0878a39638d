"""What the stages hand to each other: frozen, checked when made.

Shapes use N images, C channels, H × W pixels, P poisons and M synthetic images a class.
``pixels`` are uint8, ``images`` are floats in [0, 1], ``inputs`` are normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch

from rdmdc.errors import InputError


class RecordError(InputError):
    """A record's content contradicts itself: a wrong dtype, shape, range or label."""


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise RecordError(fault)


def _counts(labels: torch.Tensor, classes: int) -> torch.Tensor:
    if len(labels):
        low, high = int(labels.min()), int(labels.max())
        _require(low >= 0 and high < classes, f"labels {low}..{high} outside 0..{classes - 1}")
    return torch.bincount(labels, minlength=classes)


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of images in [0, 1]; both have C entries."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        _require(
            len(self.mean) == len(self.std),
            f"{len(self.mean)} means, {len(self.std)} stds",
        )
        _require(all(s > 0 for s in self.std), f"a std is not positive: {self.std}")
        _require(
            all(map(isfinite, (*self.mean, *self.std))),
            f"a mean or std is not finite: {self.mean}, {self.std}",
        )

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised inputs (..., C, H, W) float32 of pixel values (..., C, H, W) in 0..255.

        The only place that normalises; it is differentiable for float pixel values.
        """
        scale = 255 * pixels.new_tensor(self.std, dtype=torch.float32)[:, None, None]
        shift = pixels.new_tensor(self.mean, dtype=torch.float32)[:, None, None]
        return pixels.float() / scale - shift / scale * 255

    def images(self, inputs: torch.Tensor) -> torch.Tensor:
        """Images (..., C, H, W) in [0, 1] of normalised inputs, clipped, for people to look at."""
        std = inputs.new_tensor(self.std)[:, None, None]
        mean = inputs.new_tensor(self.mean)[:, None, None]
        return (inputs * std + mean).clamp(0, 1)


@dataclass(frozen=True)
class LabelledImages:
    """One split of a data set, sorted by class.

    pixels (N, C, H, W) uint8, labels (N,) int64, the classes' names, and the normalisation that
    both splits share (it is the training split's).
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    normalisation: Normalisation

    def __post_init__(self) -> None:
        _require(
            self.pixels.dtype == torch.uint8,
            f"pixels are {self.pixels.dtype}, not uint8",
        )
        _require(
            self.pixels.ndim == 4,
            f"pixels have shape {tuple(self.pixels.shape)}, not N,C,H,W",
        )
        _require(
            self.labels.dtype == torch.int64,
            f"labels are {self.labels.dtype}, not int64",
        )
        _require(
            self.labels.shape == self.pixels.shape[:1],
            f"{len(self.pixels)} images but labels of shape {tuple(self.labels.shape)}",
        )
        _require(
            len(self.normalisation.mean) == self.pixels.shape[1],
            f"{len(self.normalisation.mean)} normalisation means, {self.pixels.shape[1]} channels",
        )
        counts = self.counts()
        empty = [name for name, n in zip(self.class_names, counts.tolist(), strict=True) if n == 0]
        _require(not empty, f"no images of class {', '.join(empty)}")
        _require(bool((self.labels.diff() >= 0).all()), "images are not sorted by class")

    def counts(self) -> torch.Tensor:
        """Images per class (C,); raises RecordError on a label outside the classes."""
        return _counts(self.labels, len(self.class_names))

    def class_start(self) -> torch.Tensor:
        """Index of each class's first image (C,): class c is start[c] … start[c] + counts[c]."""
        counts = self.counts()
        return counts.cumsum(0) - counts


@dataclass(frozen=True)
class Target:
    """The test image that the attacker wants misread (§2.1: x^t and y^adv).

    ``seed`` names the target, ``index`` is its place in the test split; pixels (C, H, W) uint8.
    """

    seed: int
    index: int
    pixels: torch.Tensor
    true_label: int
    adversarial_label: int

    def __post_init__(self) -> None:
        _require(
            self.true_label != self.adversarial_label,
            f"target {self.seed}: the adversarial label {self.adversarial_label} is the true label;"
            " choose another",
        )
        _require(
            self.pixels.dtype == torch.uint8 and self.pixels.ndim == 3,
            f"target {self.seed}: pixels must be uint8 (C, H, W)",
        )
        _require(
            min(self.index, self.true_label, self.adversarial_label) >= 0,
            f"target {self.seed}: a negative index or label",
        )

    def check(self, split: LabelledImages) -> None:
        """Raise RecordError unless its shape and labels are those of a split's images."""
        shape, classes = tuple(split.pixels.shape[1:]), len(split.class_names)
        _require(
            tuple(self.pixels.shape) == shape,
            f"target {self.seed} has shape {tuple(self.pixels.shape)}, the images {shape}",
        )
        _require(
            max(self.true_label, self.adversarial_label) < classes,
            f"target {self.seed}: a label outside 0..{classes - 1}",
        )


@dataclass(frozen=True)
class PoisonSet:
    """Poisons that replace training images, label for label (clean-label for all but `direct`).

    indices (P,) int64 into the training split, labels (P,) int64, pixels (P, C, H, W) uint8.
    """

    indices: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor

    def __post_init__(self) -> None:
        count = len(self.indices)
        for what in ("indices", "labels"):
            dtype = getattr(self, what).dtype
            _require(dtype == torch.int64, f"{what} are {dtype}, not int64")
        _require(
            self.pixels.dtype == torch.uint8,
            f"pixels are {self.pixels.dtype}, not uint8",
        )
        _require(
            self.pixels.ndim == 4 and len(self.pixels) == len(self.labels) == count,
            f"{count} indices, {len(self.labels)} labels, pixels {tuple(self.pixels.shape)}",
        )
        _require(len(set(self.indices.tolist())) == count, "an image is poisoned twice")

    def apply(self, train: LabelledImages) -> LabelledImages:
        """The poisoned training set T' (§2.1), a copy; raises RecordError where it does not fit."""
        self.check(train)
        pixels = train.pixels.clone()
        pixels[self.indices] = self.pixels
        return LabelledImages(pixels, train.labels, train.class_names, train.normalisation)

    def check(self, train: LabelledImages) -> None:
        """Raise RecordError unless every poison replaces an image of its own label."""
        _require(
            self.pixels.shape[1:] == train.pixels.shape[1:],
            f"poisons of shape {tuple(self.pixels.shape[1:])}, images of"
            f" {tuple(train.pixels.shape[1:])}",
        )
        inside = (self.indices >= 0) & (self.indices < len(train.labels))
        _require(
            bool(inside.all()),
            f"a poison's index is outside 0..{len(train.labels) - 1}",
        )
        _require(
            torch.equal(train.labels[self.indices], self.labels),
            "a poison's label differs from the label of the image that it replaces",
        )


@dataclass(frozen=True)
class Screening:
    """What a screen says of a training split: scores (N,) float64 and kept (N,) bool.

    A higher score is more suspicious; scores are compared within a class.
    """

    scores: torch.Tensor
    kept: torch.Tensor

    def __post_init__(self) -> None:
        _require(
            self.scores.dtype == torch.float64 and self.scores.ndim == 1,
            f"scores are {self.scores.dtype} {tuple(self.scores.shape)}, not float64 (N,)",
        )
        _require(
            self.kept.dtype == torch.bool and self.kept.shape == self.scores.shape,
            f"kept is {self.kept.dtype} {tuple(self.kept.shape)}, not bool like the scores",
        )
        bad = int((~torch.isfinite(self.scores)).sum())
        _require(bad == 0, f"{bad} scores are NaN or infinity")

    def check(self, train: LabelledImages) -> None:
        """Raise RecordError unless it has a score for each image and leaves some of each class."""
        _require(
            len(self.scores) == len(train.labels),
            f"{len(self.scores)} screened images, {len(train.labels)} in the training split",
        )
        left = torch.bincount(train.labels[self.kept], minlength=len(train.class_names))
        for name, count in zip(train.class_names, left.tolist(), strict=True):
            _require(count > 0, f"the screen leaves no image of class {name!r}; lower its drop")


@dataclass(frozen=True)
class SyntheticSet:
    """A condensed data set: inputs (C·M, C, H, W) float32, normalised; labels (C·M,) by class."""

    inputs: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    normalisation: Normalisation

    def __post_init__(self) -> None:
        _require(
            self.inputs.dtype == torch.float32,
            f"inputs are {self.inputs.dtype}, not float32",
        )
        _require(
            self.inputs.ndim == 4,
            f"inputs have shape {tuple(self.inputs.shape)}, not N,C,H,W",
        )
        _require(len(self.inputs) == len(self.labels), "as many labels as inputs are needed")
        bad = ~torch.isfinite(self.inputs).flatten(1).all(1)
        _require(
            not bool(bad.any()),
            f"{int(bad.sum())} of {len(bad)} synthetic images hold NaN or infinity:"
            " lower the condenser's learning_rate",
        )
        _require(
            self.labels.dtype == torch.int64,
            f"labels are {self.labels.dtype}, not int64",
        )
        _require(
            len(self.normalisation.mean) == self.inputs.shape[1],
            f"{len(self.normalisation.mean)} normalisation means, {self.inputs.shape[1]} channels",
        )
        counts = _counts(self.labels, len(self.class_names))
        _require(len(set(counts.tolist())) == 1, f"images per class differ: {counts.tolist()}")
        _require(bool((self.labels.diff() >= 0).all()), "images are not sorted by class")

    def check(self, split: LabelledImages) -> None:
        """Raise RecordError unless classes, normalisation and shape are those of a split."""
        for what in ("class_names", "normalisation"):
            _require(
                getattr(self, what) == getattr(split, what),
                f"the condensed set and the images differ in {what}",
            )
        _require(
            self.inputs.shape[1:] == split.pixels.shape[1:],
            f"condensed images of shape {tuple(self.inputs.shape[1:])}, images of"
            f" {tuple(split.pixels.shape[1:])}",
        )

    @property
    def ipc(self) -> int:
        """M, the synthetic images per class."""
        return len(self.inputs) // len(self.class_names)
