"""Listing Parquet, Arrow and NumPy files: which column holds images, which labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rdmdc.datasets import listed_files
from rdmdc.datasets.split import DatasetError, listed
from rdmdc.datasets.upright import header, upright
from rdmdc.owndata.findings import Faults
from rdmdc.owndata.rows import Row
from rdmdc.storage.guarded import reading_now

IMAGES = ("image", "img", "images", "picture")
LABELS = ("label", "labels", "class", "target", "fine_label", "y")


def columns(schema: pa.Schema, path: Path, image: str | None, label: str | None) -> tuple[str, str]:
    """The columns of images and labels: those that are named, the usual ones, or the only ones."""
    pictures = [field.name for field in schema if _holds_images(field.type)]
    numbers = [field.name for field in schema if _holds_labels(field.type)]
    return (
        _column(path, schema, "image", "struct<bytes, path> or binary", image, pictures, IMAGES),
        _column(path, schema, "label", "whole numbers or text", label, numbers, LABELS),
    )


def labels(form: str, path: Path, column: str) -> list[Any]:
    """The labels of a file, as they are."""
    return [x for batch in listed_files.batches(form, path, [column]) for x in batch[0].to_pylist()]


def names_of(schema: pa.Schema, column: str) -> list[str] | None:
    """The classes' names in the metadata that `datasets` or this package writes; else None."""
    try:
        metadata = schema.metadata or {}
        if b"class_names" in metadata:
            return list(map(str, json.loads(metadata[b"class_names"])))
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return list(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def numbered(values: Sequence[Any], names: list[str] | None, place: str) -> tuple[Any, list[str]]:
    """Labels (N,) int64 from 0 and the classes' names: of numbers without names, the numbers."""
    missing = [i for i, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise DatasetError(f"{place} row {missing[0]}: no label; label or remove the image")
    if names is not None and all(isinstance(value, int) for value in values):
        outside = [i for i, value in enumerate(values) if not 0 <= value < len(names)]
        if outside:
            raise DatasetError(
                f"{place} row {outside[0]}: label {values[outside[0]]} is outside"
                f" 0..{len(names) - 1}, the classes that the file names; mend it"
            )
        return np.asarray(values, np.int64), names
    found = sorted(set(values))
    index = {value: number for number, value in enumerate(found)}
    return np.asarray([index[value] for value in values], np.int64), list(map(str, found))


def images(
    form: str, path: Path, column: str, label: Sequence[int], decode: bool, faults: Faults
) -> Iterator[Row]:
    """The images of a file; with ``decode`` each is decoded once to see that it can be."""
    digest = listed_files.sha256(path)
    for row, content in listed_files.rows_of(form, path, column, np.arange(len(label))):
        place = f"{path} row {row}"
        reading_now(place)
        if isinstance(content, np.ndarray):
            size = (content.shape[1], content.shape[0])
            yield Row(str(path), row, int(label[row]), digest, size, content.ndim == 2)
            continue
        try:
            if not content:
                raise ValueError("no bytes; embed the images in the file")
            size, grey = header(content)
            if decode:
                upright(content)
        except MemoryError:
            raise
        except Exception as error:  # decoders of damaged files raise nearly anything
            faults.add(place, f"no image that can be decoded ({error})", "replace or remove it")
            continue
        yield Row(str(path), row, int(label[row]), digest, size, grey)


# --- .npz ------------------------------------------------------------------------------------

PAIRS = [
    ("images", "labels"),
    ("train_images", "train_labels"),
    ("x_train", "y_train"),
    ("x", "y"),
    ("data", "labels"),
]
TESTS = [("test_images", "test_labels"), ("x_test", "y_test")]


def arrays(path: Path) -> tuple[dict[str, np.ndarray], str, str, tuple[str, str] | None]:
    """All arrays, the names of images and labels, and those of a test split if there is one."""
    found = listed_files.arrays_of(path)
    pair = next((pair for pair in PAIRS if set(pair) <= set(found)), None)
    if pair is None:
        raise DatasetError(
            f"{path}: its arrays are {listed(list(found))}; name them images and labels"
        )
    test = next((pair for pair in TESTS if set(pair) <= set(found)), None)
    for images, labels in filter(None, (pair, test)):
        _check(path, images, found[images], labels, found[labels])
    return found, *pair, test


def _check(path: Path, image: str, pixels: np.ndarray, label: str, values: np.ndarray) -> None:
    if pixels.ndim not in (3, 4) or (
        pixels.ndim == 4 and not {1, 3} & {pixels.shape[1], pixels.shape[3]}
    ):
        raise DatasetError(
            f"{path}: {image} has shape {pixels.shape}, not (N, H, W), (N, H, W, 3) or (N, 3, H, W)"
        )
    if pixels.dtype.kind == "f" and (not len(pixels) or pixels.min() < 0 or pixels.max() > 1):
        raise DatasetError(f"{path}: {image} are numbers outside 0..1; scale them, or save uint8")
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise DatasetError(f"{path}: {image} are {pixels.dtype}; save uint8, or floats in 0..1")
    if values.size != len(pixels):
        raise DatasetError(f"{path}: {len(pixels)} {image}, but {values.size} {label}")


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_labels(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _column(
    path: Path,
    schema: pa.Schema,
    what: str,
    kind: str,
    given: str | None,
    fitting: list[str],
    usual: tuple[str, ...],
) -> str:
    if given is not None:
        if given not in fitting:
            raise DatasetError(
                f"{path}: no column {given!r} of {kind}; set --{what}-column to one of"
                f" {listed(fitting or schema.names)}"
            )
        return given
    chosen = [name for name in usual if name in fitting][:1]
    chosen = chosen or (fitting if len(fitting) == 1 else [])
    if not chosen:
        raise DatasetError(
            f"{path}: which column holds the {what}s ({kind})? Name one by --{what}-column; there"
            f" are {listed(schema.names)}"
        )
    return chosen[0]
