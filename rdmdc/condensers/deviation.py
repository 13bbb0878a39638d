"""What poisons do to an estimate of a class's mean, and what a filter does to poisons.

The pipeline knows which images are poisons; the estimators never see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from rdmdc import rates
from rdmdc.estimators.estimate import Estimate

Estimator = Callable[[Sequence[int], "torch.Tensor"], Estimate]
"""An estimator bound to its options and generators: classes (B), embeddings (B, N, D)."""


def trace_rows(
    embeddings: torch.Tensor,
    poisoned: torch.Tensor,
    estimate: Estimate,
    classes: Sequence[int],
    estimator: Estimator,
) -> list[dict[str, Any]]:
    """One row per class of embeddings (B, N, D) with poisoned (B, N) and their estimate.

    recall: dropped poisons / poisons; precision: dropped poisons / dropped.
    deviation_before: ‖(1/N) Σ_poisons r‖, Def. 4.1 with Eq. 6 for the plain mean;
    deviation_after: ‖(1/kept) Σ_kept poisons r‖, the same for what the filter kept.
    shift_before, shift_after: how far the plain mean, and this estimate, lie from the same of the
    batch without its poisons: unlike Def. 4.1 it is defined for median and trimmed mean too.
    distance_after: how far this estimate lies from the plain mean of the batch without its poisons,
    which holds the filter's own bias as well.
    Distances are in embedding units. NaN where it is not
    defined: no poisons in the batch, an estimator that keeps no whole samples, nothing left.
    """
    with torch.no_grad():
        return [
            _row(embeddings[b], poisoned[b], estimate, b, partial(estimator, [c]))
            for b, c in enumerate(classes)
        ]


def _row(
    embeddings: torch.Tensor,
    poisoned: torch.Tensor,
    estimate: Estimate,
    b: int,
    again: Callable[[torch.Tensor], Estimate],
) -> dict[str, Any]:
    count = int(poisoned.sum())
    row: dict[str, Any] = dict.fromkeys(
        (
            "recall",
            "precision",
            "deviation_before",
            "deviation_after",
            "shift_before",
            "shift_after",
            "distance_after",
        ),
        float("nan"),
    )
    row["poisons"] = count
    row["kept"] = -1 if estimate.kept is None else int(estimate.kept[b].sum())
    if count in (0, len(embeddings)):
        return row
    poisons, clean = embeddings[poisoned], embeddings[~poisoned]
    row["deviation_before"] = float((poisons.sum(0) / len(embeddings)).norm())
    row["shift_before"] = float((embeddings.mean(0) - clean.mean(0)).norm())
    row["distance_after"] = float((estimate.value[b] - clean.mean(0)).norm())
    with suppress(rates.RateError):
        row["shift_after"] = float((estimate.value[b] - again(clean[None]).value[0]).norm())
    if estimate.kept is not None:
        kept = estimate.kept[b]
        dropped = int((~kept).sum())
        caught = int((poisoned & ~kept).sum())
        row["recall"] = caught / count
        row["precision"] = caught / dropped if dropped else float("nan")
        left = embeddings[poisoned & kept].sum(0) / int(kept.sum())
        row["deviation_after"] = float(left.norm())
    return row
