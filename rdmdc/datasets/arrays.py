"""Data sets as arrays, for the Python API: decoded from files, or given by the caller."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdmdc.datasets.preparing import prepare
from rdmdc.errors import InputError
from rdmdc.records import LabelledImages, Normalisation
from rdmdc.storage.images import load_images
from rdmdc.storage.provenance import Provenance

Images = LabelledImages | np.ndarray | torch.Tensor


class ApiError(InputError):
    """Arguments that do not fit; the message names the value and what would be right."""


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
    those of the source, for instance ``image_column="img"``. Raises DatasetError.
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
    limits = per_class and {"train": per_class[0], "test": per_class[1]}
    decoding = {
        "classes": list(classes) if classes is not None else None,
        "per_class": limits,
        "size": size,
        "color": color,
        "normalisation": "training_split",
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "train.safetensors"), Path(folder, "test.safetensors")
        prepare({**own, **options, **decoding}, *paths, Provenance.begin("data", {}, "", []))
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
    normalisation a test split shares. Raises ApiError or RecordError.
    """
    if isinstance(images, LabelledImages):
        return images
    if labels is None:
        raise ApiError("labels are missing: one whole number from 0 for each image")
    pixels = torch.as_tensor(images)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.ndim != 4:
        raise ApiError(f"images have shape {tuple(pixels.shape)}, not (N, C, H, W)")
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise ApiError(f"float images are in {low:.3g}..{high:.3g}, not in 0..1; scale them")
        pixels = (pixels * 255).round().to(torch.uint8)
    numbers = torch.as_tensor(labels).to(torch.int64)
    if numbers.shape != pixels.shape[:1]:
        raise ApiError(f"{len(pixels)} images, but labels of shape {tuple(numbers.shape)}")
    order = numbers.argsort(stable=True)
    if like is not None:
        sorted_like = pixels[order].contiguous()
        return LabelledImages(sorted_like, numbers[order], like.class_names, like.normalisation)
    names = tuple(class_names) or tuple(str(c) for c in range(int(numbers.max()) + 1))
    sorted_pixels = pixels[order].contiguous()
    values = sorted_pixels.double().transpose(0, 1).flatten(1) / 255
    spread = values.std(1, correction=0).clamp(min=1 / 255)
    normalisation = Normalisation(tuple(values.mean(1).tolist()), tuple(spread.tolist()))
    return LabelledImages(sorted_pixels, numbers[order], names, normalisation)


def _in_memory(images: LabelledImages) -> LabelledImages:
    """A copy that does not need the file any more."""
    return LabelledImages(
        images.pixels.clone(), images.labels.clone(), images.class_names, images.normalisation
    )
