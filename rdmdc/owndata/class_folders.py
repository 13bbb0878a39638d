"""Listing a folder of class folders, with whatever else such folders hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from rdmdc.datasets import listed_files
from rdmdc.datasets.split import DatasetError
from rdmdc.datasets.upright import header, upright
from rdmdc.owndata.findings import Faults
from rdmdc.owndata.forms import listing
from rdmdc.owndata.rows import Row
from rdmdc.storage.guarded import reading_now


def classes(root: Path, faults: Faults) -> list[str]:
    """Names of the class folders, sorted."""
    names = []
    for path in listing(root):
        if path.is_dir() and _named(path, faults) and not _loops(root, path, faults):
            names.append(path.name)
    if not names:
        raise DatasetError(
            f"{root}: holds no class folders; put the images of each class into a folder of its own"
        )
    return names


def images(root: Path, names: list[str], decode: bool, faults: Faults) -> Iterator[Row]:
    """The images of the classes; with ``decode`` each is decoded once to see that it can be."""
    for path in listing(root):
        if path.is_dir() and path.name in names:
            for file in listing(path):
                row = _image(file, names.index(path.name), decode, faults)
                if row is not None:
                    yield row


def _image(file: Path, label: int, decode: bool, faults: Faults) -> Row | None:
    if not _named(file, faults):
        return None
    if file.is_dir():
        faults.add(
            str(file), "a folder where images should be", "move its images up into the class folder"
        )
        return None
    reading_now(file)
    try:
        content = listed_files.content(file)
        size, grey = header(content)
        if decode:
            upright(content)
    except MemoryError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        faults.add(str(file), f"cannot be read ({reason})", "replace or remove it")
        return None
    except Exception as error:  # decoders of damaged files raise nearly anything
        faults.add(str(file), f"no image that can be decoded ({error})", "replace or remove it")
        return None
    return Row(str(file), -1, label, hashlib.sha256(content).hexdigest(), size, grey)


def _named(path: Path, faults: Faults) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        faults.add(shown, "its name is not valid UTF-8", "rename it")
        return False
    return True


def _loops(root: Path, path: Path, faults: Faults) -> bool:
    if path.is_symlink() and root.resolve().is_relative_to(path.resolve()):
        faults.add(str(path), "a link to a folder that holds it", "remove it")
        return True
    return False
