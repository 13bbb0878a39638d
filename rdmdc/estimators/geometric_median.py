"""The point with the least sum of distances to a class's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Estimate
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """How exactly the median is found."""

    iterations: int = option("steps of Weiszfeld's algorithm, from the mean", at_least=1)


@plugins.estimator(Options)
def geometric_median(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Options
) -> Estimate:
    """Geometric median: the point whose distances to a class's N vectors have the least sum.

    Not in the paper; Weiszfeld 1937, for robust aggregation Chen et al. 2017 and Pillutla et al.
    2022. Each step averages vectors (B, N, D) with weights 1 / distance; distances below a
    millionth of their median count as that, so that a step may land on a vector (Pillutla's
    smoothing, relative to a distance that far vectors do not stretch).
    """
    median = vectors.mean(1, keepdim=True)
    for _ in range(options.iterations):
        distances = (vectors - median).norm(dim=2, keepdim=True)
        middle = distances.median(1, keepdim=True).values
        least = (1e-6 * middle).clamp(min=torch.finfo(vectors.dtype).tiny)
        weights = least / distances.clamp(min=least)
        median = (weights * vectors).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    return Estimate(median.squeeze(1), None)
