"""Data sets as arrays, for the Python API: decoded from files, or given by the caller."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdmdc.arguments import ApiError, checked, one_of, whole
from rdmdc.datasets.decoding import MODES, source_of
from rdmdc.datasets.preparing import prepare
from rdmdc.records import LabelledImages, Normalisation, RecordError
from rdmdc.storage.images import load_images
from rdmdc.storage.provenance import Provenance

Images = LabelledImages | np.ndarray | torch.Tensor


@checked
def load_dataset(
    source: str | Path = "emoji",
    test: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    per_class: tuple[int | None, int | None] | None = None,
    size: int | None = None,
    color: str = "rgb",
    **options: Any,
) -> tuple[LabelledImages, LabelledImages]:
    """The training and the test split of a data set, decoded and sorted by class.

    source: the name of an embedded data set ("emoji"), a Parquet file in the Hugging Face hub's
    image schema, or a folder of class folders; the latter two need ``test`` as well. per_class:
    how many images of a class to keep, of both splits. size: side in pixels to scale to. options:
    those of the source, for instance ``image_column="img"``. Raises DatasetError where the files
    are at fault, ApiError where the arguments are.
    """
    place = Path(source)
    if test is None and not place.exists():
        own: dict[str, Any] = {"source": "embedded", "name": str(source)}
    elif test is None:
        raise ApiError(f"{source}: name the test split as well: load_dataset(train, test)")
    elif place.is_dir():
        own = {"source": "folder", "train": str(source), "test": str(test)}
        own["layout"] = "class_folders"
    else:
        columns = {"image_column": "image", "label_column": "label", "class_names": None}
        own = {"source": "parquet", "train": str(source), "test": str(test), **columns}
    limits = None
    if per_class is not None:
        if not isinstance(per_class, Sequence) or len(per_class) != 2:
            raise ApiError(f"per_class is {per_class!r}; give a number for each split: (100, 20)")
        for number in per_class:
            if number is not None:
                whole(number, "per_class", 1)
        limits = {"train": per_class[0], "test": per_class[1]}
    if size is not None:
        whole(size, "size", 1)
    one_of(color, "color", MODES)
    decoding = {
        "classes": list(classes) if classes is not None else None,
        "per_class": limits,
        "size": size,
        "color": color,
        "normalisation": "training_split",
    }
    given = {**own, **options, **decoding}
    source_of(given)  # its options are checked here, where a child process would say DatasetError
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "train.safetensors"), Path(folder, "test.safetensors")
        prepare(given, *paths, Provenance.begin("data", {}, "", []))
        train, held_out = (_in_memory(load_images(path)) for path in paths)
    return train, held_out


def labelled(
    images: Images,
    labels: Any = None,
    class_names: Sequence[str] = (),
    *,
    like: LabelledImages | None = None,
) -> LabelledImages:
    """Images with their labels, sorted by class, with their own mean and standard deviation.

    images: (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels: (N,) whole
    numbers from 0. Of equal labels the order is kept. like: the training split, whose classes and
    normalisation a test split shares. Raises ApiError.
    """
    if isinstance(images, LabelledImages):
        return images
    if labels is None:
        raise ApiError("labels are missing: one whole number from 0 for each image")
    pixels = _pixels(images)
    numbers = _numbers(labels, len(pixels))
    names = tuple(class_names) if like is None else like.class_names
    if not names:
        names = tuple(str(c) for c in range(int(numbers.max()) + 1))
    elif int(numbers.max()) >= len(names):
        raise ApiError(
            f"labels go up to {int(numbers.max())}, but there are {len(names)} classes; number"
            " them from 0, or name all classes"
        )
    order = numbers.argsort(stable=True)
    sorted_pixels = pixels[order].contiguous()
    if like is None:
        values = sorted_pixels.double().transpose(0, 1).flatten(1) / 255
        spread = values.std(1, correction=0).clamp(min=1 / 255)
        normalisation = Normalisation(tuple(values.mean(1).tolist()), tuple(spread.tolist()))
    elif pixels.shape[1:] != like.pixels.shape[1:]:
        raise ApiError(
            f"images have shape {tuple(pixels.shape[1:])}, those of `like`"
            f" {tuple(like.pixels.shape[1:])}; bring them to the same size and channels"
        )
    else:
        normalisation = like.normalisation
    try:
        return LabelledImages(sorted_pixels, numbers[order], names, normalisation)
    except RecordError as error:
        raise ApiError(
            f"{error}; add images of it, or number the classes that there are"
        ) from error


def _pixels(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Pixels (N, C, H, W) uint8 of images in any of the layouts that `labelled` takes."""
    pixels = _tensor(images, "images")
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.ndim != 4:
        raise ApiError(f"images have shape {tuple(pixels.shape)}, not (N, C, H, W)")
    if not pixels.numel():
        raise ApiError(f"images have shape {tuple(pixels.shape)} and hold nothing; give some")
    if pixels.is_floating_point():
        bad = int((~torch.isfinite(pixels)).flatten(1).any(1).sum())
        if bad:
            raise ApiError(f"{bad} of {len(pixels)} images hold NaN or infinity; mend or drop them")
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise ApiError(f"float images are in {low:.3g}..{high:.3g}, not in 0..1; scale them")
        pixels = (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise ApiError(f"images are {pixels.dtype}; give uint8 in 0..255, or floats in 0..1")
    return pixels


def _numbers(labels: Any, count: int) -> torch.Tensor:
    """Labels (N,) int64 of ``count`` images."""
    found = _tensor(labels, "labels")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ApiError(f"labels are {found.dtype}; give whole numbers from 0")
    if found.shape != (count,):
        raise ApiError(
            f"{count} images, but labels of shape {tuple(found.shape)}; give one label an image"
        )
    numbers = found.to(torch.int64)
    if int(numbers.min()) < 0:
        raise ApiError(f"a label is {int(numbers.min())}; give whole numbers from 0")
    return numbers


def _tensor(values: Any, what: str) -> torch.Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ApiError(f"{what} are no array of numbers ({error}); give one") from error


def _in_memory(images: LabelledImages) -> LabelledImages:
    """A copy that does not need the file any more."""
    return LabelledImages(
        images.pixels.clone(), images.labels.clone(), images.class_names, images.normalisation
    )
