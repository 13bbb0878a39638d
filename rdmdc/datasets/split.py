"""What a source gives: two splits whose images are not decoded yet.

A source knows its labels at once and opens its images only when asked, so that class subsets and
per-class counts are chosen before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rdmdc.errors import InputError


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
