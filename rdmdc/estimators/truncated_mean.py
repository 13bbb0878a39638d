"""The mean of the vectors nearest to the plain mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Drop, Estimate, mean_without_top


@plugins.estimator(Drop)
def truncated_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Drop
) -> Estimate:
    """Mean without the k = ⌈drop · N⌉ vectors farthest from the plain mean (§4.5)."""
    centred = vectors - vectors.mean(1, keepdim=True)
    return mean_without_top(vectors, centred.square().sum(2), options.drop)
