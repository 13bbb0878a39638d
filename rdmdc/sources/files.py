"""Where real images come from: four sources, each a function of the config's section ``dataset``.

A source knows its labels at once and opens its images only when asked, so that class subsets and
per-class counts are chosen before anything is decoded. Nothing here unpickles but torchvision, and
that only files of a known md5.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rdmdc.errors import InputError
from rdmdc.storage import claims

BATCH = 64  # rows of a Parquet file in memory at a time
LARGEST = 1 << 26  # bytes of an encoded image or of a list of annotations


class DatasetError(InputError):
    """The data set cannot be read as configured; the message names file or key and a remedy."""


@dataclass(frozen=True)
class Split:
    """One split, not yet decoded: where it is from, labels (N,) int64, the classes' names.

    ``images(wanted)``, with ``wanted`` (N,) bool, yields a row, its place for error messages and
    its image, encoded or as uint8 (H, W) or (H, W, 3), for every wanted row.
    """

    place: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    images: Callable[[np.ndarray], Iterator[tuple[int, str, bytes | np.ndarray]]]


def unique(names: Sequence[str], place: str) -> list[str]:
    """The names, each of them once; DatasetError where ``place`` repeats one."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{place}: {listed(twice)} appears more than once; name each once")
    return list(names)


def listed(names: Sequence[str]) -> str:
    """The names for a message, the first twenty of many."""
    shown = ", ".join(names[:20])
    return f"{shown}, … ({len(names)} in all)" if len(names) > 20 else shown


# --- Parquet: the hub's image schema ---------------------------------------------------------


def embedded(options: Mapping[str, Any]) -> tuple[Split, Split]:
    """The data set ``name`` that comes with the package."""
    folder = Path(str(resources.files("rdmdc.datasets") / "emoji"))
    files = {part: folder / f"{options['name']}-{part}.parquet" for part in ("train", "test")}
    if not all(file.is_file() for file in files.values()):
        there = [f.name.removesuffix("-train.parquet") for f in folder.glob("*-train.parquet")]
        raise DatasetError(
            f"dataset.name: no embedded data set {options['name']!r}; there are:"
            f" {listed(sorted(there)) or 'none (install the package again)'}"
        )
    columns = {"image_column": "image", "label_column": "label", "class_names": None}
    return parquet({**columns, **{part: str(file) for part, file in files.items()}})


def parquet(options: Mapping[str, Any]) -> tuple[Split, Split]:
    """Local Parquet files: images as ``struct<bytes, path>`` or binary, labels as integers.

    The classes' names are the config's, or the files' (metadata ``class_names`` or the hub's
    ``huggingface``), or the labels' numbers.
    """
    paths = {part: _paths(options[part], part) for part in ("train", "test")}
    image, label = options["image_column"], options["label_column"]
    labels = {
        part: {path: _labels(path, image, label, part) for path in files}
        for part, files in paths.items()
    }
    highest = max((int(v.max()) for v in labels["train"].values() if len(v)), default=-1)
    names = (
        options["class_names"]
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
    train, test = (_parquet_split(labels[part], tuple(names), image) for part in paths)
    return train, test


def _paths(given: str | Sequence[str], part: str) -> list[Path]:
    names = [given] if isinstance(given, str) else given
    return list(map(Path, unique(names, f"dataset.{part}")))


def _parquet_split(labels: Mapping[Path, np.ndarray], names: tuple[str, ...], column: str) -> Split:
    """The rows of the files, one after the other."""

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
        claims.check_parquet(path, claims.leaves(schema, [image_column, label_column]), BATCH)
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
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(f"{path}: too little memory to read it ({error})") from error
    except Exception as error:  # readers of damaged files raise nearly anything
        try:
            with path.open("rb") as content:
                magic = content.read(4)
        except OSError:
            fault = "cannot be opened; mend its permissions"
        else:
            fault = (
                "truncated or damaged; fetch it again"
                if magic == b"PAR1"
                else "not a Parquet file; mend the path or choose another dataset.source"
            )
        raise DatasetError(f"{path}: {fault} ({error})") from error


# --- folders of image files ------------------------------------------------------------------


def folder(options: Mapping[str, Any]) -> tuple[Split, Split]:
    """Two folders of image files in one of the layouts; classes are sorted by name."""
    return LAYOUTS[options["layout"]](Path(options["train"]), Path(options["test"]))


def class_folders(train: Path, test: Path) -> tuple[Split, Split]:
    """``<class>/<image>`` in both."""
    names = _classes(train)
    extra = sorted(set(_classes(test)) - set(names))
    if extra:
        raise DatasetError(
            f"{test / extra[0]}: class {extra[0]!r} is not in {train}; add it there or remove it"
        )
    return _class_split(train, names, ""), _class_split(test, names, "")


def tiny_imagenet(train: Path, test: Path) -> tuple[Split, Split]:
    """Tiny ImageNet's own: ``<wnid>/images/<image>``, and ``images`` with val_annotations.txt."""
    names = _classes(train)
    annotations = test / "val_annotations.txt"
    try:
        lines = _content(annotations).decode(errors="replace").splitlines()
    except OSError as error:
        raise DatasetError(
            f"{annotations}: cannot be read ({error.strerror}); dataset.test is to be the folder"
            " val of Tiny ImageNet"
        ) from error
    there = {file.name: file for file in _images(test / "images")}
    files: dict[Path, int] = {}
    for number, line in enumerate(lines, 1):
        name, wnid = [*line.split("\t"), ""][:2]
        for wrong, fault in (
            (name not in there, f"no image {name!r} in {test / 'images'}"),
            (wnid not in names, f"class {wnid!r} is not in {train}"),
            (there.get(name) in files, f"image {name!r} is named again"),
        ):
            if wrong:
                raise DatasetError(
                    f"{annotations} line {number}: {fault}; unpack the archive again"
                )
        files[there[name]] = names.index(wnid)
    if len(files) < len(there):
        missing = min(set(there.values()) - set(files))
        raise DatasetError(f"{missing}: not in {annotations}; unpack the archive again")
    return _class_split(train, names, "images"), _file_split(test, files, names)


def _class_split(root: Path, names: Sequence[str], below: str) -> Split:
    files = {
        file: label
        for label, name in enumerate(names)
        if (root / name).is_dir()
        for file in _images(root / name / below)
    }
    return _file_split(root, files, names)


def _file_split(root: Path, files: Mapping[Path, int], names: Sequence[str]) -> Split:
    def images(wanted: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
        for row, file in enumerate(files):
            if wanted[row]:
                try:
                    content = _content(file)
                except OSError as error:
                    raise DatasetError(f"{file}: cannot be read ({error.strerror})") from error
                yield row, str(file), content

    return Split(str(root), np.array(list(files.values()), np.int64), tuple(names), images)


def _classes(root: Path) -> list[str]:
    """The names of the class folders, sorted."""
    names = [path.name for path in _listing(root) if path.is_dir()]
    if not names:
        raise DatasetError(f"{root}: holds no class folders; see dataset.train and dataset.test")
    return names


def _images(root: Path) -> list[Path]:
    """The image files of a folder, sorted; whatever is no image shows when it is decoded."""
    files = _listing(root)
    for file in files:
        if file.is_dir():
            raise DatasetError(
                f"{file}: a folder where images should be; see dataset.layout for Tiny ImageNet's"
            )
    return files


def _content(path: Path) -> bytes:
    """All of a regular file that is no larger than an image: a pipe or a device might not end."""
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path}: not a regular file; remove it")
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DatasetError(f"{path}: larger than {LARGEST} bytes; remove it or scale the image")
    return content


def _listing(root: Path) -> list[Path]:
    """What a folder holds, hidden files apart, sorted by name."""
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(
            f"{root}: not a folder that can be read ({error.strerror}); mend dataset.train or"
            " dataset.test"
        ) from error


# --- torchvision -----------------------------------------------------------------------------


def torchvision(options: Mapping[str, Any]) -> tuple[Split, Split]:
    """CIFAR10, CIFAR100, MNIST or FashionMNIST, downloaded into ``root`` on first use."""
    from torchvision import datasets  # costs a second that the other sources need not pay

    offered = (datasets.CIFAR10, datasets.CIFAR100, datasets.MNIST, datasets.FashionMNIST)
    kinds = {kind.__name__: kind for kind in offered}
    name, root = options["name"], Path(options["root"])
    if name not in kinds:
        raise DatasetError(f"dataset.name: {name!r} is not one of {listed(list(kinds))}")
    kind = kinds[name]
    try:
        train, test = (kind(root, train=train, download=True) for train in (True, False))
    except Exception as error:  # no network, no space, a damaged file: torchvision wraps none
        cifar = hasattr(kind, "filename")
        archives = [kind.filename] if cifar else [file for file, _ in kind.resources]
        raise DatasetError(
            f"dataset.name: {name} is not whole in {root} and cannot be downloaded ({error}); put"
            f" {listed(archives)} into {root if cifar else root / name / 'raw'} (remove damaged"
            " files there), or use dataset.source: parquet"
        ) from error

    def split(part: str, data: Any) -> Split:
        pixels, labels = np.asarray(data.data), np.asarray(data.targets, np.int64)

        def images(wanted: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
            for row in np.flatnonzero(wanted).tolist():
                yield row, f"{name} {part} image {row}", pixels[row]

        return Split(f"{name} {part}", labels, tuple(data.classes), images)

    return split("train", train), split("test", test)


LAYOUTS = {layout.__name__: layout for layout in (class_folders, tiny_imagenet)}
SOURCES = {source.__name__: source for source in (embedded, torchvision, parquet, folder)}
