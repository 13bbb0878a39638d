"""People's own data, read by a list of images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdmdc import plugins
from rdmdc.datasets import listed_files
from rdmdc.datasets.split import DatasetError, Split
from rdmdc.datasets.upright import upright
from rdmdc.options import option
from rdmdc.storage.guarded import reading_now

if TYPE_CHECKING:
    from rdmdc.datasets.image_list import ImageList


@dataclass(frozen=True)
class Options:
    """Images that a list names: of a folder of class folders, of Parquet, Arrow or NumPy files."""

    images: str = option("list of the images, as rdmdc condense writes it")


@plugins.source(Options, files=lambda options: [options.images])
def own_data(options: Options) -> tuple[Split, Split]:
    """People's own data, read by a list of images; files that changed since are refused."""
    from rdmdc.datasets.image_list import load  # pyarrow: planning needs none of it

    images = load(Path(options.images))
    return split(images, False), split(images, True)


def split(images: ImageList, test: bool) -> Split:
    """One split of a list, decoded when it is asked for."""
    chosen = images.part(test)

    def decoded(wanted: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
        positions = np.flatnonzero(wanted)
        for position, found in _contents(images, chosen[positions], positions):
            place = images.place(chosen[position])
            reading_now(place)
            try:
                pixels = found if isinstance(found, np.ndarray) else upright(found)
            except MemoryError:
                raise
            except Exception as error:  # decoders of damaged files raise nearly anything
                raise DatasetError(
                    f"{place}: undecodable image ({error}); replace or remove it, or leave it out"
                    " by --skip-broken"
                ) from error
            yield position, place, pixels

    place = os.path.commonpath(images.files) if len(images.files) else "the list"
    return Split(place, images.labels[chosen], images.class_names, decoded)


def _contents(
    images: ImageList, indices: np.ndarray, positions: np.ndarray
) -> Iterator[tuple[int, listed_files.Content]]:
    """The content of the images at some indices of the list, each with its position."""
    if images.form == "folder":
        for index, position in zip(indices.tolist(), positions.tolist(), strict=True):
            yield position, _file(Path(images.files[index]), images.sha256[index])
        return
    by_file: dict[str, dict[int, int]] = {}  # position by row
    for index, position in zip(indices.tolist(), positions.tolist(), strict=True):
        by_file.setdefault(images.files[index], {})[int(images.rows[index])] = position
    hashes = dict(zip(images.files, images.sha256, strict=True))
    for name, places in by_file.items():
        path = Path(name)
        reading_now(path)
        if not path.is_file() or listed_files.sha256(path) != hashes[name]:
            raise _changed(path)
        rows = np.fromiter(places, np.int64)
        for row, found in listed_files.rows_of(images.form, path, images.column, rows):
            yield places[row], found


def _file(path: Path, sha256: str) -> bytes:
    reading_now(path)
    try:
        found = listed_files.content(path)
    except (OSError, ValueError) as error:
        raise _changed(path) from error
    if hashlib.sha256(found).hexdigest() != sha256:
        raise _changed(path)
    return found


def _changed(path: Path) -> DatasetError:
    return DatasetError(
        f"{path}: gone or changed since the list of images was written; run rdmdc condense again"
    )
