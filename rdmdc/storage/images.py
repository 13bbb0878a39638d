"""Images, targets, poisons and condensed sets on disk, each checked when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rdmdc.records import LabelledImages, Normalisation, PoisonSet, SyntheticSet, Target
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import reading
from rdmdc.storage.tensors import exactly, load, save

NUMBERS = ("seed", "index", "true_label", "adversarial_label")  # of a target

# --- images ----------------------------------------------------------------------------------


def save_images(path: Path, images: LabelledImages, provenance: Provenance) -> None:
    """Save a split as ``pixels`` (N, C, H, W) and ``labels`` (N,), to be memory-mapped."""
    tensors = {"pixels": images.pixels, "labels": images.labels}
    save(path, "images", tensors, provenance, **_named(images))


def load_images(path: Path, expect: Mapping[str, Any] | None = None) -> LabelledImages:
    """A split, its pixels memory-mapped. ``expect``: options that it must have been made with."""
    with reading(path):
        tensors, metadata = load(path, "images", expect)
        pixels, labels = exactly(tensors, "pixels", "labels")
        return LabelledImages(pixels, labels, *_names(metadata))


# --- targets and poisons ---------------------------------------------------------------------


def save_target(path: Path, target: Target, provenance: Provenance) -> None:
    """Save a target: ``pixels`` (C, H, W), and a number each for its seed, index and labels."""
    numbers = {name: torch.tensor(getattr(target, name)) for name in NUMBERS}
    save(path, "target", {**numbers, "pixels": target.pixels}, provenance)


def load_target(
    path: Path, expect: Mapping[str, Any] | None = None, split: LabelledImages | None = None
) -> Target:
    """A target; ArtifactError where the file is not one, or does not fit the ``split``."""
    with reading(path):
        tensors, _ = load(path, "target", expect)
        *numbers, pixels = exactly(tensors, *NUMBERS, "pixels")
        for name, value in zip(NUMBERS, numbers, strict=True):
            if value.dtype != torch.int64 or value.ndim:
                raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}, not a number")
        seed, index, true_label, adversarial_label = (int(value) for value in numbers)
        target = Target(seed, index, pixels.clone(), true_label, adversarial_label)
        if split is not None:
            target.check(split)
        return target


def save_poisons(path: Path, poisons: PoisonSet, provenance: Provenance) -> None:
    """Save poisons: ``indices`` (P,), ``labels`` (P,) and ``pixels`` (P, C, H, W)."""
    save(path, "poisons", dict(vars(poisons)), provenance)


def load_poisons(
    path: Path, expect: Mapping[str, Any] | None = None, train: LabelledImages | None = None
) -> PoisonSet:
    """A poison set; ArtifactError where the file is not one, or does not fit ``train``."""
    with reading(path):
        tensors, _ = load(path, "poisons", expect)
        poisons = PoisonSet(*(t.clone() for t in exactly(tensors, "indices", "labels", "pixels")))
        if train is not None:
            poisons.check(train)
        return poisons


# --- condensed sets --------------------------------------------------------------------------


def save_synthetic(path: Path, synthetic: SyntheticSet, provenance: Provenance) -> None:
    """Save a condensed set: ``inputs`` (C·M, C, H, W), ``labels`` (C·M,), classes, moments."""
    tensors = {"inputs": synthetic.inputs, "labels": synthetic.labels}
    save(path, "synthetic set", tensors, provenance, **_named(synthetic))


def load_synthetic(
    path: Path, expect: Mapping[str, Any] | None = None, split: LabelledImages | None = None
) -> SyntheticSet:
    """A condensed set; ArtifactError where the file is not one, or does not fit the ``split``."""
    with reading(path):
        tensors, metadata = load(path, "synthetic set", expect)
        inputs, labels = (t.clone() for t in exactly(tensors, "inputs", "labels"))
        synthetic = SyntheticSet(inputs, labels, *_names(metadata))
        if split is not None:
            synthetic.check(split)
        return synthetic


# --- their metadata --------------------------------------------------------------------------


def _named(record: LabelledImages | SyntheticSet) -> dict[str, Any]:
    normalisation = record.normalisation
    return {
        "class_names": record.class_names,
        "mean": normalisation.mean,
        "std": normalisation.std,
    }


def _names(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], Normalisation]:
    names = metadata["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of names")
    return tuple(names), Normalisation(tuple(metadata["mean"]), tuple(metadata["std"]))
