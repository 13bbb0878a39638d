"""What an estimator returns, and means without the highest scores.

An estimator maps vectors (B, N, D), embeddings or gradients, of B classes to means (B, D). It takes
one generator per class, so that a class draws the same numbers whichever other classes are in the
batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import rates
from rdmdc.options import Rate, option


@dataclass(frozen=True)
class Estimate:
    """value (B, D); kept (B, N) bool: the vectors averaged, None where they differ by feature."""

    value: torch.Tensor
    kept: torch.Tensor | None


@dataclass(frozen=True)
class Others:
    """Rows (R, D) sampled from the whole minibatch, each centred by its class's mean, and the
    label (R,) of each: what an estimator across classes compares a class with.
    """

    rows: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Drop:
    """How much of each class an estimator leaves out."""

    drop: Rate = option(
        "share of each class's minibatch to drop: 3ε, ε the poisoning rate within the class (§4.3)"
    )


def mean_without_top(vectors: torch.Tensor, scores: torch.Tensor, drop: Rate) -> Estimate:
    """Mean of vectors (B, N, D) without the k = ⌈drop · N⌉ of highest score (B, N).

    Of equal scores the earlier is dropped. Raises RateError where nothing would be left.
    """
    n = scores.shape[1]
    k = rates.dropped(drop, n)
    order = scores.argsort(dim=1, descending=True, stable=True)
    kept = torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :k], False)
    return mean_of_kept(vectors, kept, n - k)


def mean_of_kept(vectors: torch.Tensor, kept: torch.Tensor, count: int) -> Estimate:
    """Mean of the ``count`` vectors (B, N, D) of each class that are kept (B, N)."""
    total = torch.bmm(kept.to(vectors).unsqueeze(1), vectors).squeeze(1)
    return Estimate(total / count, kept)
