"""Reading the images of a list, form by form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmdc.datasets.split import DatasetError
from rdmdc.storage.guarded import allow, reading_now

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 1 << 28  # bytes of an encoded image
BATCH = 64  # rows of a file in memory at a time
Content = bytes | np.ndarray
Found = Iterator[tuple[int, Content]]
"""A row and its image, encoded or as an array."""


def sha256(path: Path) -> str:
    """The file's sha256 as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: Path) -> bytes:
    """All of a regular file no larger than LARGEST; OSError or ValueError otherwise."""
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        found = file.read(LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"larger than {LARGEST >> 20} MB")
    return found


# --- files of rows ---------------------------------------------------------------------------


def rows_of(form: str, path: Path, column: str, wanted: np.ndarray) -> Found:
    """The images of the ``wanted`` rows (n,) of a file, in the file's order."""
    allow(4 * path.stat().st_size)  # beside the pixels: a reader's buffers
    with _readable(path):
        yield from READERS[form](path, column, np.sort(wanted))


def batches(form: str, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A Parquet or an Arrow file, a few rows at a time."""
    import pyarrow as pa  # here and below: planning needs none of it
    import pyarrow.parquet as pq

    if form == "parquet":
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(BATCH, columns=columns, use_threads=False)
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            for start in range(0, len(batch), BATCH):
                yield batch.select(columns).slice(start, BATCH)


def schema_of(form: str, path: Path) -> pa.Schema:
    """The schema of a Parquet or an Arrow file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reading_now(path)
    with _readable(path):
        if form == "parquet":
            with pq.ParquetFile(path) as file:
                return file.schema_arrow
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return stream.schema


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``; DatasetError where it is damaged or would run code."""
    reading_now(path)
    allow(4 * path.stat().st_size)
    with _readable(path), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _in_table(form: str) -> Callable[[Path, str, np.ndarray], Found]:
    def read(path: Path, column: str, wanted: np.ndarray) -> Found:
        import pyarrow as pa
        import pyarrow.compute as pc

        start = 0
        for batch in batches(form, path, [column]):
            low, high = np.searchsorted(wanted, [start, start + len(batch)])
            rows = wanted[low:high]
            encoded = batch.column(0).take(pa.array(rows - start))
            if pa.types.is_struct(encoded.type):
                encoded = pc.struct_field(encoded, "bytes")
            start += len(batch)
            for row, value in zip(rows.tolist(), encoded, strict=True):
                yield row, value.as_py() or b""

    return read


def _in_arrays(path: Path, column: str, wanted: np.ndarray) -> Found:
    """``column`` names one array or several with commas between; rows count through all."""
    arrays, start = arrays_of(path), 0
    for name in column.split(","):
        images = arrays[name]
        for row in wanted[(wanted >= start) & (wanted < start + len(images))].tolist():
            yield row, as_pixels(images[row - start])
        start += len(images)


READERS = {"parquet": _in_table("parquet"), "arrow": _in_table("arrow"), "npz": _in_arrays}


def as_pixels(image: np.ndarray) -> np.ndarray:
    """An image of an array as uint8 (H, W) or (H, W, 3); floats are taken to be in 0..1."""
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype.kind == "f":
        image = (image * 255).round().astype(np.uint8)
    return np.ascontiguousarray(image)


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Turn what a reader raises of a damaged file into a DatasetError."""
    try:
        yield
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # readers of damaged files raise nearly anything
        raise DatasetError(
            f"{path}: cannot be read ({error}); if it is truncated or damaged, fetch it again"
        ) from error
