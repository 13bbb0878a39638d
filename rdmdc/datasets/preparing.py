"""Decode a data set, which may be a stranger's, into two artifacts in a child with limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdmdc.datasets.decoding import load
from rdmdc.datasets.split import DatasetError
from rdmdc.storage.guarded import guarded
from rdmdc.storage.images import save_images
from rdmdc.storage.provenance import Provenance

MEGABYTES = 2048  # of memory for decoding, besides the pixels that are kept
RATIO = 100  # more bytes of memory for each byte of the files
SECONDS = 3600  # for decoding, a download included
RATE = 100_000  # bytes of the files for which a further second is allowed


def prepare(options: Mapping[str, Any], train: Path, test: Path, provenance: Provenance) -> None:
    """Decode the data set that the config's section ``dataset`` describes and save both splits.

    Raises DatasetError, also where a file crashes its decoder, needs too much memory or too long.
    ArtifactError where a split cannot be written.
    """
    size = sum(_bytes(Path(path)) for value in options.values() for path in _texts(value))
    guarded(
        prepared,
        options,
        str(train),
        str(test),
        asdict(provenance),
        megabytes=MEGABYTES + (RATIO * size >> 20),
        seconds=SECONDS + size / RATE,
        error=DatasetError,
        place=f"the data set of dataset.source {options['source']}",
        remedy="replace or remove it, or set dataset.per_class or dataset.size",
    )


def prepared(
    options: Mapping[str, Any], train: str, test: str, provenance: Mapping[str, Any]
) -> None:
    """Decode and save both splits: what the child does."""
    splits = load(options)
    for path, split in zip((train, test), splits, strict=True):
        save_images(Path(path), split, Provenance(**provenance))


def _texts(value: Any) -> list[str]:
    """The texts in an option, each of which may be the path of a file or a folder."""
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in values if isinstance(text, str)]


def _bytes(path: Path) -> int:
    """The size of a file, or of the files in a folder; 0 where there is neither."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
