"""Local Parquet files in the image schema of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmdc import plugins
from rdmdc.datasets.split import DatasetError, Split, listed, unique
from rdmdc.errors import NO_THREAD, is_no_thread
from rdmdc.options import option
from rdmdc.storage.guarded import reading_now

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 64  # rows of a file in memory at a time


@dataclass(frozen=True)
class Options:
    """Parquet files: images as ``struct<bytes, path>`` or binary, labels as integers."""

    train: tuple[str, ...] | str = option("a file, or a list of files, of the training split")
    test: tuple[str, ...] | str = option("a file, or a list of files, of the test split")
    image_column: str = option("column of the encoded images: struct<bytes, path> or binary")
    label_column: str = option("column of the labels: integers")
    class_names: tuple[str, ...] | None = option(
        "names of the classes by their labels; null takes the files' own"
    )


def files(options: Options) -> list[str]:
    """The files of both splits."""
    return [*_listed(options.train), *_listed(options.test)]


@plugins.source(Options, files=files)
def parquet(options: Options) -> tuple[Split, Split]:
    """Local Parquet files in the image schema of the Hugging Face hub.

    The classes' names are the config's, or the files' (metadata ``class_names`` or the hub's
    ``huggingface``), or the labels' numbers.
    """
    train = unique(_listed(options.train), "dataset.train")
    test = unique(_listed(options.test), "dataset.test")
    columns = options.image_column, options.label_column
    return read(list(map(Path, train)), list(map(Path, test)), *columns, options.class_names)


def _listed(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def read(
    train: Sequence[Path], test: Sequence[Path], image: str, label: str, given: Sequence[str] | None
) -> tuple[Split, Split]:
    """Both splits, of files with these columns; the classes' names where they are ``given``."""
    paths = {"train": train, "test": test}
    labels = {
        part: {path: _labels(path, image, label, part) for path in files}
        for part, files in paths.items()
    }
    highest = max((int(v.max()) for v in labels["train"].values() if len(v)), default=-1)
    names = (
        given
        or _recorded_names([*paths["train"], *paths["test"]], label)
        or [str(number) for number in range(highest + 1)]
    )
    for path, values in [*labels["train"].items(), *labels["test"].items()]:
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            raise DatasetError(
                f"{path} row {outside[0]}: label {values[outside[0]]} is outside"
                f" 0..{len(names) - 1}, the classes; mend it or dataset.class_names"
            )
    first, second = (_split(labels[part], tuple(names), image) for part in paths)
    return first, second


def _split(labels: Mapping[Path, np.ndarray], names: tuple[str, ...], column: str) -> Split:
    """The rows of the files, one after the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def images(wanted: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
        start = 0  # of the file, then of the batch
        for path, values in labels.items():
            first = start
            with _opened(path) as file:
                for batch in file.iter_batches(BATCH, columns=[column], use_threads=False):
                    rows = start + np.flatnonzero(wanted[start : start + len(batch)])
                    encoded = batch.column(0).take(pa.array(rows - start))
                    if pa.types.is_struct(encoded.type):
                        encoded = pc.struct_field(encoded, "bytes")
                    start += len(batch)
                    for row, value in zip(rows.tolist(), encoded, strict=True):
                        place, content = f"{path} row {row - first}", value.as_py()
                        if content is None:
                            raise DatasetError(
                                f"{place}: no image bytes in column {column!r}; embed the images"
                            )
                        yield row, place, content
            start = first + len(values)

    return Split(", ".join(map(str, labels)), np.concatenate(list(labels.values())), names, images)


def _labels(path: Path, image_column: str, label_column: str, part: str) -> np.ndarray:
    """The labels (N,) int64 of a file whose two columns are what they should be."""
    import pyarrow as pa

    if not path.is_file():
        raise DatasetError(f"{path}: no such file; mend dataset.{part}")
    with _opened(path) as file:
        schema = file.schema_arrow
        for key, column in (("image_column", image_column), ("label_column", label_column)):
            if column not in schema.names:
                raise DatasetError(
                    f"{path}: no column {column!r}; set dataset.{key} to one of"
                    f" {listed(schema.names)}"
                )
        kind = schema.field(image_column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DatasetError(
                f"{path}: column {image_column!r} is {kind}, not struct<bytes, path> or binary;"
                " set dataset.image_column"
            )
        kind = schema.field(label_column).type
        if not pa.types.is_integer(kind):
            raise DatasetError(
                f"{path}: column {label_column!r} is {kind}, not integer; set dataset.label_column"
            )
        column = file.read([label_column], use_threads=False).column(0)
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DatasetError(f"{path} row {row}: the label is null; label or remove the image")
        return np.asarray(column.cast(pa.int64()).to_numpy())


def _recorded_names(paths: Iterable[Path], label_column: str) -> list[str] | None:
    """The classes' names that the files' metadata agree on, None where there are none."""
    recorded = {}
    for path in paths:
        with _opened(path) as file:
            metadata = file.schema_arrow.metadata or {}
            try:
                if b"class_names" in metadata:
                    recorded[path] = _strings(json.loads(metadata[b"class_names"]))
                elif b"huggingface" in metadata:
                    features = json.loads(metadata[b"huggingface"])["info"]["features"]
                    if names := features.get(label_column, {}).get("names"):
                        recorded[path] = _strings(names)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DatasetError(
                    f"{path}: its metadata do not name the classes in JSON as expected ({error!r});"
                    " set dataset.class_names"
                ) from error
    lists = list(recorded.values())
    for path, names in recorded.items():
        if names != lists[0]:
            raise DatasetError(
                f"{path}: its classes ({listed(names)}) are not those of the first file"
                f" ({listed(lists[0])}); use files that agree or set dataset.class_names"
            )
    return lists[0] if lists else None


def _strings(names: Any) -> list[str]:
    if not isinstance(names, list):
        raise TypeError(f"{names!r} is not a list")
    return list(map(str, names))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; what its reader raises becomes a DatasetError that says what the file is."""
    import pyarrow.parquet as pq

    reading_now(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(f"{path}: too little memory to read it ({error})") from error
    except Exception as error:  # readers of damaged files raise nearly anything
        if is_no_thread(error):
            raise DatasetError(f"{path}: {NO_THREAD} ({error})") from error
        try:
            with path.open("rb") as content:
                magic = content.read(4)
        except OSError:
            raise DatasetError(
                f"{path}: cannot be opened; mend its permissions ({error})"
            ) from error
        if magic != b"PAR1":
            raise DatasetError(
                f"{path}: not a Parquet file; mend the path or choose another dataset.source"
                f" ({error})"
            ) from error
        raise DatasetError(f"{path}: truncated or damaged; fetch it again ({error})") from error
