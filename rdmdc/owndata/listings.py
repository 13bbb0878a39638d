"""Listing every image of a split, whatever the form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdmdc.datasets import listed_files
from rdmdc.datasets.split import DatasetError
from rdmdc.owndata import class_folders, row_files
from rdmdc.owndata.findings import Faults
from rdmdc.owndata.forms import Place
from rdmdc.owndata.rows import Row


@dataclass(frozen=True)
class Wanted:
    """What is asked for: paths, columns, the share of each class to hold out where no split is."""

    data: str
    test: str | None
    held_out: float
    skip_broken: bool
    image_column: str | None
    label_column: str | None


def rows(
    place: Place, paths: tuple[Path, ...], wanted: Wanted, names: list[str] | None, faults: Faults
) -> tuple[list[Row], list[str], str]:
    """The images of a split, the classes' names and the column; ``names`` of the other split."""
    if place.form == "folder":
        own = class_folders.classes(paths[0], faults)
        _check_names(str(paths[0]), own, names)
        files = class_folders.images(paths[0], names or own, wanted.skip_broken, faults)
        return list(files), names or own, ""
    if place.form == "npz":
        arrays, image, label, _ = row_files.arrays(paths[0])
        given = arrays["class_names"].tolist() if "class_names" in arrays else None
        values = arrays[label].ravel().tolist()
        labels, found = row_files.numbered(values, given, f"{paths[0]} {label}")
        del arrays
        listed = row_files.images("npz", paths[0], image, labels.tolist(), False, faults)
        return list(listed), found, image
    return _table(place.form, paths, wanted, names, faults)


def _table(
    form: str, paths: tuple[Path, ...], wanted: Wanted, names: list[str] | None, faults: Faults
) -> tuple[list[Row], list[str], str]:
    first = paths[0]
    schema = listed_files.schema_of(form, first)
    image, label = row_files.columns(schema, first, wanted.image_column, wanted.label_column)
    values = [row_files.labels(form, path, label) for path in paths]
    together = [value for part in values for value in part]
    numbers, found = row_files.numbered(together, row_files.names_of(schema, label), str(first))
    if names is not None and found != names:
        _check_names(str(first), found, names)
        numbers = np.asarray([names.index(found[number]) for number in numbers], np.int64)
    found_rows: list[Row] = []
    start = 0
    for path, part in zip(paths, values, strict=True):
        own = numbers[start : start + len(part)].tolist()
        found_rows += row_files.images(form, path, image, own, wanted.skip_broken, faults)
        start += len(part)
    return found_rows, names or found, image


def npz_test(path: Path, names: list[str], column: str, start: int) -> tuple[list[Row], str]:
    """The images of the file's test arrays if it has them, and the names of all its arrays."""
    arrays, image, _, pair = row_files.arrays(path)
    if pair is None:
        return [], column
    values = arrays[pair[1]].ravel().tolist()
    given = names if "class_names" in arrays else None
    numbers, found = row_files.numbered(values, given, f"{path} {pair[1]}")
    _check_names(f"{path} {pair[1]}", found, names)
    labels = [names.index(found[number]) for number in numbers]
    pixels = arrays[pair[0]]
    shape = listed_files.as_pixels(pixels[0]).shape
    digest = listed_files.sha256(path)
    listed = [
        Row(str(path), start + row, label, digest, (shape[1], shape[0]), len(shape) == 2)
        for row, label in enumerate(labels)
    ]
    return listed, f"{image},{pair[0]}"


def _check_names(place: str, own: list[str], names: list[str] | None) -> None:
    strange = sorted(set(own) - set(names)) if names is not None else []
    if strange:
        raise DatasetError(
            f"{place}: class {strange[0]!r} is not in the training split; add or remove it"
        )
