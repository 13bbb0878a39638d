"""One image while a data set is listed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An image: file, row in it or -1, label, the file's sha256, width and height, whether grey."""

    file: str
    row: int
    label: int
    sha256: str
    size: tuple[int, int]
    grey: bool
