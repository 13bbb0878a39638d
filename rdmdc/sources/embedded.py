"""The data sets that come with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rdmdc import plugins
from rdmdc.datasets.split import DatasetError, Split, listed
from rdmdc.options import option
from rdmdc.sources.parquet import read

FOLDER = Path(str(resources.files("rdmdc.datasets"))) / "emoji"


@dataclass(frozen=True)
class Options:
    """An embedded data set."""

    name: str = option("name of the data set: emoji")


def content(options: Options) -> dict[str, str]:
    """The sha256 of the data set's files by their names; none where there is no such data set."""
    files = [file for file in _files(options.name).values() if file.is_file()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@plugins.source(Options, content=content)
def embedded(options: Options) -> tuple[Split, Split]:
    """A data set that comes with the package."""
    files = _files(options.name)
    if not all(file.is_file() for file in files.values()):
        there = [f.name.removesuffix("-train.parquet") for f in FOLDER.glob("*-train.parquet")]
        raise DatasetError(
            f"dataset.name: no embedded data set {options.name!r}; there are:"
            f" {listed(sorted(there)) or 'none (install the package again)'}"
        )
    return read([files["train"]], [files["test"]], "image", "label", None)


def _files(name: str) -> dict[str, Path]:
    return {part: FOLDER / f"{name}-{part}.parquet" for part in ("train", "test")}
