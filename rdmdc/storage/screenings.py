"""Screenings on disk: a row for each training image, for people to read and for `condense`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rdmdc.records import LabelledImages, Screening
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import reading
from rdmdc.storage.rows import load_rows, save_rows


def save_screening(
    path: Path, screening: Screening, labels: torch.Tensor, provenance: Provenance
) -> None:
    """Save a screening with the labels (N,) of its images and each image's rank.

    The rank counts within the class; 0 is the most suspicious image, and of equal scores the first.
    """
    scores = screening.scores.cpu().numpy()
    rows = pd.DataFrame(
        {
            "index": np.arange(len(scores)),
            "label": labels.numpy(),
            "score": scores,
            "kept": screening.kept.cpu().numpy(),
        }
    )
    ranks = rows.groupby("label")["score"].rank(method="first", ascending=False)
    rows.insert(3, "rank", ranks.astype(np.int64) - 1)
    save_rows(path, "screening", rows, provenance)


def load_screening(
    path: Path, expect: Mapping[str, Any] | None = None, train: LabelledImages | None = None
) -> Screening:
    """A screening; ArtifactError where the file is not one, or does not fit ``train``."""
    rows = load_rows(path, "screening", expect)
    with reading(path):
        if not np.array_equal(rows["index"], np.arange(len(rows))):
            raise ValueError("its images are not in the training split's order, or not all there")
        screening = Screening(
            torch.tensor(rows["score"].to_numpy()), torch.tensor(rows["kept"].to_numpy())
        )
        if train is not None:
            screening.check(train)
            if not np.array_equal(rows["label"], train.labels.numpy()):
                raise ValueError("its labels are not the training split's")
        return screening
