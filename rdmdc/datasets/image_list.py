"""A list of somebody's images: where each lies, its label, its split and the sha256 of its file.

The list fixes what is read: a job that reads images by a list does not depend on what else lies in
their folder, and refuses a file that has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rdmdc.datasets.split import DatasetError

FORMS = ("folder", "parquet", "arrow", "npz")
KEY = b"rdmdc"
SCHEMA = pa.schema(
    [
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int64()),
        ("label", pa.int64()),
        ("test", pa.bool_()),
        ("sha256", pa.dictionary(pa.int32(), pa.string())),
    ]
)


@dataclass(frozen=True)
class ImageList:
    """N images: files (N,), rows (N,) int64, labels (N,) int64, test (N,) bool, sha256 (N,).

    form: one of FORMS. A folder has an image a file, and rows are -1; elsewhere rows count in a
    file. column: where a file keeps its images; of an ``.npz`` the names of its arrays with commas
    between, and rows count through all of them.
    """

    form: str
    column: str
    class_names: tuple[str, ...]
    files: Sequence[str]
    rows: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    sha256: Sequence[str]

    def place(self, index: int) -> str:
        """An image's place as messages name it."""
        row = int(self.rows[index])
        return self.files[index] if row < 0 else f"{self.files[index]} row {row}"

    def part(self, test: bool) -> np.ndarray:
        """Indices of the images of a split, in the order of the list."""
        return np.flatnonzero(self.test == test)

    def sorted_training(self) -> np.ndarray:
        """Indices of the training images as a decoded split has them: by class, then as listed."""
        training = self.part(False)
        return training[np.argsort(self.labels[training], kind="stable")]


def save(path: Path, images: ImageList) -> None:
    """Write a list; the file stays as it is where it says the same already."""
    columns = [images.files, images.rows, images.labels, images.test, images.sha256]
    arrays = [
        pa.array(column).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(column)
        for column, kind in zip(columns, SCHEMA.types, strict=True)
    ]
    said = {"form": images.form, "column": images.column, "class_names": images.class_names}
    table = pa.Table.from_arrays(
        [array.cast(kind) for array, kind in zip(arrays, SCHEMA.types, strict=True)],
        schema=SCHEMA.with_metadata({KEY: json.dumps(said)}),
    )
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial)
    if path.is_file() and path.read_bytes() == partial.read_bytes():
        partial.unlink()
    else:
        partial.replace(path)


def load(path: Path) -> ImageList:
    """A list; DatasetError where the file is none."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        said = json.loads(table.schema.metadata[KEY])
        form, column, names = said["form"], said["column"], said["class_names"]
        if form not in FORMS:
            raise ValueError(f"its form is {form!r}")
        columns = {name: table.column(name) for name in SCHEMA.names}
        return ImageList(
            form,
            str(column),
            tuple(map(str, names)),
            columns["file"].cast(pa.string()).to_pylist(),
            columns["row"].to_numpy(),
            columns["label"].to_numpy(),
            columns["test"].to_numpy(),
            columns["sha256"].cast(pa.string()).to_pylist(),
        )
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged files raise nearly anything
        raise DatasetError(
            f"{path}: no list of images ({error}); run rdmdc condense again to write it"
        ) from error
