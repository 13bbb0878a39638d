"""Real images, decoded once into the records that every stage reads.

Classes and images are chosen by a source's labels alone; each image then goes straight to its place
in one uint8 array.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from rdmdc import plugins
from rdmdc.datasets.normalisation import normalisation
from rdmdc.datasets.split import DatasetError, Split, listed, unique
from rdmdc.options import build
from rdmdc.records import LabelledImages
from rdmdc.storage.guarded import allow, reading_now

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # EPS would run Ghostscript
MODES = {"rgb": "RGB", "grey": "L"}
DECODING = ("source", "classes", "per_class", "size", "color", "normalisation")
"""Keys of the section ``dataset`` that are not the source's own options."""


def load(options: Mapping[str, Any]) -> tuple[LabelledImages, LabelledImages]:
    """The training and the test split that the config's section ``dataset`` describes.

    Both are sorted by class, in the source's order within a class, and share the training split's
    normalisation. Transparent images are composed over white. Everything is decoded in this
    process; for files that may be damaged or hostile, use `preparing.prepare`, which calls it in a
    child. Raises DatasetError.
    """
    source, chosen = source_of(options)
    train, test = source(chosen)
    names = tuple(options["classes"] or train.class_names)
    limits = options["per_class"] or {"train": None, "test": None}
    train_rows, train_labels = _chosen(train, names, limits["train"], "train")
    test_rows, test_labels = _chosen(test, names, limits["test"], "test")

    mode, size = MODES[options["color"]], options["size"]
    train_pixels = _decoded(train, train_rows, mode, size)
    test_pixels = _decoded(test, test_rows, mode, size)
    if train_pixels.shape[1:] != test_pixels.shape[1:]:
        raise DatasetError(
            f"images are {_size(train_pixels)} in {train.place}, {_size(test_pixels)} in"
            f" {test.place}; set dataset.size to scale them"
        )
    shared = normalisation(train_pixels, options["normalisation"], train.place)
    return (
        LabelledImages(torch.from_numpy(train_pixels), train_labels, names, shared),
        LabelledImages(torch.from_numpy(test_pixels), test_labels, names, shared),
    )


def load_training(options: Mapping[str, Any]) -> LabelledImages:
    """The training split alone, as `load` returns it; the source needs no images of a test split.

    Raises DatasetError.
    """
    source, chosen = source_of(options)
    train, _ = source(chosen)
    names = tuple(options["classes"] or train.class_names)
    limits = options["per_class"] or {"train": None}
    rows, labels = _chosen(train, names, limits["train"], "train")
    pixels = _decoded(train, rows, MODES[options["color"]], options["size"])
    shared = normalisation(pixels, options["normalisation"], train.place)
    return LabelledImages(torch.from_numpy(pixels), labels, names, shared)


def source_of(options: Mapping[str, Any]) -> tuple[plugins.Plugin, Any]:
    """The source that the config's section ``dataset`` names, and the source's own options."""
    source = plugins.get("source", options["source"], "dataset.source")
    its_own = {key: value for key, value in options.items() if key not in DECODING}
    return source, build(source.options, its_own, "dataset")


def _chosen(
    split: Split, names: Sequence[str], limit: int | None, part: str
) -> tuple[np.ndarray, torch.Tensor]:
    """The rows (n,) to keep, class by class, and their new labels (n,)."""
    if len(split.labels) == 0:
        raise DatasetError(f"{split.place}: holds no images; mend dataset.{part}")
    known = unique(split.class_names, f"the class names of {split.place}")
    rows = []
    for name in unique(names, "dataset.classes"):
        if name not in known:
            raise DatasetError(
                f"dataset.classes: {split.place} has no class {name!r}; it has {listed(known)}"
            )
        found = np.flatnonzero(split.labels == known.index(name))
        if len(found) == 0:
            raise DatasetError(
                f"{split.place}: no images of class {name!r}; add some or leave the class out of"
                " dataset.classes"
            )
        if limit is not None and len(found) < limit:
            raise DatasetError(
                f"dataset.per_class.{part} is {limit}, but {split.place} has {len(found)} images"
                f" of class {name!r}; lower it"
            )
        rows.append(found[:limit])
    labels = np.repeat(np.arange(len(rows)), [len(found) for found in rows])
    return np.concatenate(rows), torch.from_numpy(labels)


# --- pixels ----------------------------------------------------------------------------------


def _decoded(split: Split, rows: np.ndarray, mode: str, size: int | None) -> np.ndarray:
    """The images of the rows (n,), in that order: (n, C, H, W) uint8."""
    slots = np.full(len(split.labels), -1)
    slots[rows] = np.arange(len(rows))
    pixels, count = np.empty(0, np.uint8), 0  # until the first image tells the size
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, place, encoded in split.images(slots >= 0):
            reading_now(place)
            try:
                image = _decode(encoded, mode, size)
            except MemoryError:
                raise
            except Exception as error:  # decoders of damaged files raise nearly anything
                raise DatasetError(
                    f"{place}: undecodable image ({error}); replace or remove it"
                ) from error
            if len(pixels) == 0:
                _check_memory(len(rows) * image.nbytes, split.place)
                allow(len(rows) * image.nbytes)
                pixels = np.empty((len(rows), *image.shape), np.uint8)
            if image.shape != pixels.shape[1:]:
                raise DatasetError(
                    f"{place}: the image is {_size(image)}, others are {_size(pixels)}; set"
                    " dataset.size to scale them"
                )
            pixels[slots[row]] = image
            count += 1
    if count != len(rows):
        raise DatasetError(
            f"{split.place}: {count} images for {len(rows)} labels; damaged, fetch it again"
        )
    return pixels


def _check_memory(needed: int, place: str) -> None:
    """Raise DatasetError where the machine's memory cannot hold so many bytes of pixels."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise DatasetError(
            f"{place}: {needed} bytes of pixels, this machine has {there} of memory; set"
            " dataset.per_class or dataset.size"
        )


def _decode(encoded: bytes | np.ndarray, mode: str, size: int | None) -> np.ndarray:
    """One image (C, H, W) uint8; transparent parts become white, not as by PIL's convert()."""
    if isinstance(encoded, bytes):
        try:
            image: Image.Image = Image.open(BytesIO(encoded), formats=FORMATS)
        except UnidentifiedImageError as error:  # its own message is a memory address
            raise ValueError(f"none of {', '.join(FORMATS)}") from error
    else:
        image = Image.fromarray(encoded)
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"mode {image.mode}: more than 8 bits a pixel, which PIL would clip")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _size(images: np.ndarray) -> str:
    height, width = images.shape[-2:]
    return f"{width}×{height}"
