"""The mean and standard deviation that both splits are normalised by."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdmdc.datasets.split import DatasetError
from rdmdc.records import Normalisation

BATCH = 1 << 20  # pixels of a histogram at a time


def normalisation(pixels: np.ndarray, wanted: Any, place: str) -> Normalisation:
    """The configured values, or each channel's exact mean and population std, by a histogram."""
    channels = pixels.shape[1]
    if wanted != "training_split":
        for key in ("mean", "std"):
            if len(wanted[key]) != channels:
                raise DatasetError(
                    f"dataset.normalisation.{key} has {len(wanted[key])} entries, images have"
                    f" {channels} channels; give one for each, or 'training_split'"
                )
            if not np.isfinite(wanted[key]).all():
                raise DatasetError(f"dataset.normalisation.{key}: {wanted[key]} must be finite")
        if min(wanted["std"]) <= 0:
            raise DatasetError(f"dataset.normalisation.std: {wanted['std']} must be positive")
        return Normalisation(tuple(wanted["mean"]), tuple(wanted["std"]))
    counts = np.zeros((channels, 256))
    step = max(1, BATCH // pixels[0, 0].size)
    for start in range(0, len(pixels), step):
        for channel in range(channels):
            values = pixels[start : start + step, channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    weights, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(1))
    if std.min() == 0:
        raise DatasetError(
            f"{place}: channel {int(std.argmin())} is the same in every image, its std is 0;"
            " check the files, or set dataset.normalisation"
        )
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
