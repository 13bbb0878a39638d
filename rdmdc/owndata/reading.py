"""From a list of images to decoded ones, in a child process with limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdmdc.datasets.decoding import load_training
from rdmdc.datasets.preparing import MEGABYTES, SECONDS
from rdmdc.datasets.split import DatasetError
from rdmdc.records import LabelledImages
from rdmdc.storage.guarded import guarded
from rdmdc.storage.images import load_images, save_images
from rdmdc.storage.provenance import Provenance


def dataset(images: Path, size: int | None, color: str) -> dict[str, Any]:
    """The section ``dataset`` of a preset that reads a list of images."""
    return {
        "source": "own_data",
        "images": str(images),
        "classes": None,
        "per_class": None,
        "size": size,
        "color": color,
        "normalisation": "training_split",
    }


def training_split(options: Mapping[str, Any], path: Path) -> LabelledImages:
    """The training split of a section ``dataset``, decoded into ``path`` and memory-mapped.

    Raises DatasetError.
    """
    guarded(
        decoded,
        options,
        str(path),
        asdict(Provenance.begin("data", options, "", [])),
        megabytes=MEGABYTES,
        seconds=6 * SECONDS,
        error=DatasetError,
        place=options["images"],
        remedy="replace or remove it, or set --size",
    )
    return load_images(path)


def decoded(options: Mapping[str, Any], path: str, provenance: Mapping[str, Any]) -> None:
    """Decode and save the training split: what the child does."""
    save_images(Path(path), load_training(options), Provenance(**provenance))
