"""Folders of image files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdmdc import plugins
from rdmdc.datasets.split import DatasetError, Split
from rdmdc.options import option

LARGEST = 1 << 26  # bytes of an encoded image or of a list of annotations


@dataclass(frozen=True)
class Options:
    """Two folders of image files."""

    train: str = option("folder of the training split")
    test: str = option("folder of the test split")
    layout: str = option(
        "class_folders: <class>/<image> in both; tiny_imagenet: as that archive is unpacked, the"
        " test split is its folder val",
        choices=("class_folders", "tiny_imagenet"),
    )


def fingerprint(options: Options) -> str:
    """16 hex digits of the names, sizes and times of all files in both folders, links followed."""
    hashed = hashlib.sha256()
    for root in (options.train, options.test):
        for path, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                with suppress(OSError):
                    said = Path(path, name).stat()
                    hashed.update(f"{path}/{name} {said.st_size} {said.st_mtime_ns}\n".encode())
    return hashed.hexdigest()[:16]


@plugins.source(Options, fingerprint=fingerprint)
def folder(options: Options) -> tuple[Split, Split]:
    """Two folders of image files; classes are sorted by name."""
    return LAYOUTS[options.layout](Path(options.train), Path(options.test))


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
        place = f"{annotations} line {number}"
        if name not in there:
            raise DatasetError(
                f"{place}: no image {name!r} in {test / 'images'}; unpack the archive again"
            )
        if wnid not in names:
            raise DatasetError(
                f"{place}: class {wnid!r} is not in {train}; unpack the archive again"
            )
        if there[name] in files:
            raise DatasetError(f"{place}: image {name!r} is named again; unpack the archive again")
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


LAYOUTS = {layout.__name__: layout for layout in (class_folders, tiny_imagenet)}
