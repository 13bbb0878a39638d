"""Mean calibration in several rounds, each with a direction of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmdc import plugins, rates
from rdmdc.estimators.estimate import Drop, Estimate, mean_of_kept
from rdmdc.estimators.spectral_mean import top_direction
from rdmdc.options import option


@dataclass(frozen=True)
class Options(Drop):
    """What is dropped, in how many rounds."""

    rounds: int = option("rounds that share what is dropped; one is `spectral_mean`", at_least=1)
    power_iterations: int = option("I of Alg. 5, in each round", at_least=1)


@plugins.estimator(Options)
def iterated_spectral_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Options
) -> Estimate:
    """Drop k = ⌈drop · N⌉ in rounds, each along the top direction of what is left.

    The iterated filter of Diakonikolas et al. 2017 ("Being robust (in high dimensions) can be
    practical"), for vectors (B, N, D). Deviation: they remove what lies beyond a threshold of the
    tail and stop when the variance is small; here a round removes its share of k, whatever lies
    there, as Alg. 4 does. Of equal scores the earlier is dropped.
    """
    n = vectors.shape[1]
    k = rates.dropped(options.drop, n)
    left = torch.arange(n, device=vectors.device).expand(len(vectors), n)
    for number in range(options.rounds):
        keep = n - k * (number + 1) // options.rounds
        own = vectors.gather(1, left.unsqueeze(2).expand(-1, -1, vectors.shape[2]))
        centred = own - own.mean(1, keepdim=True)
        direction = top_direction(centred, generators, options.power_iterations)
        scores = torch.bmm(centred, direction.unsqueeze(2)).squeeze(2).abs()
        order = scores.argsort(dim=1, descending=True, stable=True)
        left = left.gather(1, order[:, left.shape[1] - keep :].sort(dim=1).values)
    kept = torch.zeros(len(vectors), n, dtype=torch.bool, device=vectors.device)
    return mean_of_kept(vectors, kept.scatter(1, left, True), n - k)
