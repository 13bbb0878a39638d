"""A control: the mean without vectors chosen at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Drop, Estimate, mean_without_top


@plugins.estimator(Drop)
def random_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Drop
) -> Estimate:
    """Mean without k = ⌈drop · N⌉ vectors chosen at random: a control, not in the paper.

    It tells what dropping so many does by itself.
    """
    n = vectors.shape[1]
    scores = torch.stack([torch.rand(n, generator=g) for g in generators])
    return mean_without_top(vectors, scores.to(vectors.device), options.drop)
