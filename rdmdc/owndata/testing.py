"""Real images to test a network on: in any form that people bring, seen as a set's images are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rdmdc.datasets import image_list
from rdmdc.datasets.split import DatasetError, listed
from rdmdc.owndata import reading
from rdmdc.owndata.listings import Wanted
from rdmdc.owndata.survey import Survey, survey
from rdmdc.records import LabelledImages, SyntheticSet


def real(
    data: str,
    made: SyntheticSet,
    skip_broken: bool,
    columns: tuple[str | None, str | None],
    work: Path,
) -> tuple[LabelledImages, Survey]:
    """The test split of the data, or all of it where it has no splits, memory-mapped in ``work``.

    Images are scaled to the set's side, and normalised by its mean and standard deviation; classes
    are matched by name. Raises DatasetError, also where the classes are not those of the set.
    """
    path = work / "images.parquet"
    seen = survey(Wanted(data, None, 0.0, skip_broken, *columns), path)
    images = image_list.load(path)
    held_out = images.part(True)
    if len(held_out):
        images = replace(
            images,
            files=[images.files[index] for index in held_out],
            rows=images.rows[held_out],
            labels=images.labels[held_out],
            test=np.zeros(len(held_out), dtype=bool),
            sha256=[images.sha256[index] for index in held_out],
        )
        image_list.save(path, images)
    _check_classes(data, {images.class_names[label] for label in images.labels}, made.class_names)
    _, channels, side, _ = made.inputs.shape
    options = reading.dataset(path, side, "grey" if channels == 1 else "rgb")
    options["classes"] = list(made.class_names)
    found = reading.training_split(options, work / "test.safetensors")
    return replace(found, normalisation=made.normalisation), seen


def _check_classes(data: str, own: set[str], wanted: tuple[str, ...]) -> None:
    """Raise DatasetError unless the classes are those of the set."""
    strange, missing = sorted(own - set(wanted)), sorted(set(wanted) - own)
    if strange:
        raise DatasetError(
            f"{data}: class {strange[0]!r} is not one of the set's, {listed(list(wanted))}; rename"
            " or remove it"
        )
    if missing:
        raise DatasetError(
            f"{data}: no images of class {missing[0]!r}, which the set has; add some"
        )
