"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST, downloaded by torchvision.

Torchvision unpickles the CIFARs, and only files of a known md5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdmdc import plugins
from rdmdc.datasets.split import DatasetError, Split, listed
from rdmdc.options import option

NAMES = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST")


@dataclass(frozen=True)
class Options:
    """A data set of torchvision's."""

    name: str = option("name of the data set", choices=NAMES)
    root: str = option("folder that it is downloaded into on first use")


@plugins.source(Options)
def torchvision(options: Options) -> tuple[Split, Split]:
    """CIFAR10, CIFAR100, MNIST or FashionMNIST, downloaded into ``root`` on first use."""
    from torchvision import datasets  # costs a second that the other sources need not pay

    name, root = options.name, Path(options.root)
    kind = getattr(datasets, name)
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
