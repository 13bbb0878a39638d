"""Survey of a data set: every image listed once, in a child process with limits.

The survey decides what is read from then on: the images that can be, their classes, the split that
is held out, the size that all are scaled to, and whether all are grey.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdmdc.datasets import image_list
from rdmdc.datasets.image_list import ImageList
from rdmdc.datasets.split import DatasetError
from rdmdc.owndata import listings
from rdmdc.owndata.findings import Faults
from rdmdc.owndata.forms import recognise
from rdmdc.owndata.listings import Wanted
from rdmdc.owndata.rows import Row
from rdmdc.randomness import generator
from rdmdc.storage.guarded import guarded

MEGABYTES = 4096
SECONDS = 6 * 3600
LARGEST_SIDE = 64  # that images are left at; larger ones are scaled to it


@dataclass(frozen=True)
class Survey:
    """What was found: counts by class of both splits, side and colour to read at, faults."""

    form: str
    class_names: list[str]
    train: list[int]
    test: list[int]
    test_from: str  # where the test split is from, in words
    size: int | None
    sizes: str  # of the images as they are, in words
    color: str
    faults: list[tuple[str, str]]


def survey(wanted: Wanted, out: Path) -> Survey:
    """List the images into ``out``. Raises DatasetError, with what to do."""
    out.parent.mkdir(parents=True, exist_ok=True)
    said = guarded(
        surveyed,
        asdict(wanted),
        str(out),
        megabytes=MEGABYTES,
        seconds=SECONDS,
        error=DatasetError,
        place=wanted.data,
        remedy="replace or remove it",
    )
    return Survey(**json.loads(said))


def surveyed(options: dict[str, Any], out: str) -> bytes:
    """Survey and save the list: what the child does."""
    wanted, faults = Wanted(**options), Faults(options["skip_broken"])
    place = recognise(Path(wanted.data))
    train, names, column = listings.rows(place, place.train, wanted, None, faults)
    held_out, test_from = place.test, "the data's own test split"
    if wanted.test is not None:
        other = recognise(Path(wanted.test))
        if other.form != place.form:
            raise DatasetError(
                f"{wanted.test}: of form {other.form}, {wanted.data} is of form {place.form}; give"
                " both in one form"
            )
        held_out, test_from = other.test or other.train, Path(wanted.test).absolute().name
    if place.form == "npz" and wanted.test is not None:
        raise DatasetError(f"{wanted.test}: put test_images and test_labels into {wanted.data}")
    test: list[Row] = []
    if place.form == "npz":
        test, column = listings.npz_test(place.train[0], names, column, len(train))
    elif held_out:
        test, _, _ = listings.rows(place, held_out, wanted, names, faults)
    train, test, names = _without_empty(train, test, names, wanted, faults)
    if not test and wanted.held_out:
        train, test = _hold_out(train, names, wanted.held_out)
        test_from = f"{wanted.held_out:.0%} of each class, held out at random"
    _save(Path(out), place.form, column, names, train, test)
    sides = Counter(row.size for row in (*train, *test))
    found = Survey(
        place.form,
        names,
        _counts(train, names),
        _counts(test, names),
        test_from if test else "none",
        _size(sides),
        _in_words(sides),
        "grey" if all(row.grey for row in (*train, *test)) else "rgb",
        faults.found,
    )
    return json.dumps(asdict(found)).encode()


def _without_empty(
    train: list[Row], test: list[Row], names: list[str], wanted: Wanted, faults: Faults
) -> tuple[list[Row], list[Row], list[str]]:
    """Without classes that have no images; of what is left there must be two."""
    counts = _counts(train, names)
    for name, count in zip(names, counts, strict=True):
        if count == 0:
            faults.add(
                f"{wanted.data}: class {name!r}", "it has no images", "add some or remove it"
            )
    left = [name for name, count in zip(names, counts, strict=True) if count]
    if len(left) < 2:
        raise DatasetError(
            f"{wanted.data}: {f'only one class, {left[0]!r}' if left else 'no images'}; a class is"
            " judged by what sets it apart from others, so put images of at least two classes there"
        )
    index = {names.index(name): number for number, name in enumerate(left)}

    def moved(rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            if row.label in index:
                yield Row(row.file, row.row, index[row.label], row.sha256, row.size, row.grey)

    return list(moved(train)), list(moved(test)), left


def _hold_out(train: list[Row], names: list[str], share: float) -> tuple[list[Row], list[Row]]:
    """A share of each class at random, at least one image, in a split of its own."""
    labels = np.asarray([row.label for row in train])
    chosen: set[int] = set()
    for label, name in enumerate(names):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise DatasetError(
                f"class {name!r}: one image, so that none can be held out; add some, or name a test"
                " split by --test"
            )
        order = torch.randperm(len(own), generator=generator("held out", label))
        chosen |= set(own[order[: max(1, round(share * len(own)))].numpy()].tolist())
    kept = [row for index, row in enumerate(train) if index not in chosen]
    return kept, [train[index] for index in sorted(chosen)]


def _save(
    out: Path, form: str, column: str, names: list[str], train: list[Row], test: list[Row]
) -> None:
    rows = [*train, *test]
    images = ImageList(
        form,
        column,
        tuple(names),
        [str(Path(row.file).absolute()) for row in rows],
        np.asarray([row.row for row in rows], np.int64),
        np.asarray([row.label for row in rows], np.int64),
        np.asarray([False] * len(train) + [True] * len(test)),
        [row.sha256 for row in rows],
    )
    image_list.save(out, images)


def _counts(rows: list[Row], names: list[str]) -> list[int]:
    counts = Counter(row.label for row in rows)
    return [counts[label] for label in range(len(names))]


def _size(sizes: Counter[tuple[int, int]]) -> int | None:
    """The side to scale to; None where all images are of one size that a network can take."""
    smallest = min(min(size) for size in sizes)
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        if width == height and width <= LARGEST_SIDE and width % 4 == 0:
            return None
    side = 32
    while side * 2 <= min(smallest, LARGEST_SIDE):
        side *= 2
    return side


def _in_words(sizes: Counter[tuple[int, int]]) -> str:
    usual = [f"{width}×{height}" for (width, height), _ in sizes.most_common(3)]
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    return ", ".join(usual) + more
