"""The mean without the vectors far out in all directions of large variance together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Drop, Estimate, mean_without_top
from rdmdc.options import option


@dataclass(frozen=True)
class Options(Drop):
    """What is dropped, and how strongly directions of large variance count."""

    alpha: float = option(
        "weight of large variances: 0 counts all directions alike, many only the largest",
        at_least=0,
    )


@plugins.estimator(Options)
def quantum_entropy_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Options
) -> Estimate:
    """Drop the k = ⌈drop · N⌉ of highest quantum-entropy score (Dong, Hopkins and Li 2019).

    Not in the paper. The score of a centred vector x of a class is xᵀ exp(α S / ‖S‖) x, S their
    covariance and ‖S‖ its largest eigenvalue: with α = 0 it is `truncated_mean`, with α → ∞
    `spectral_mean`. Deviation: nothing is whitened before, since no clean covariance is known.
    """
    centred = vectors - vectors.mean(1, keepdim=True)
    return mean_without_top(vectors, quantum_entropy_scores(centred, options.alpha), options.drop)


def quantum_entropy_scores(centred: torch.Tensor, alpha: float) -> torch.Tensor:
    """Scores (B, N) of centred vectors (B, N, D): xᵀ exp(α S / ‖S‖) x over the largest weight.

    Of the N × N Gram matrix with eigenvalues g_j and eigenvectors u_j: ⟨x_i, v_j⟩² = g_j u_ij².
    """
    values, vectors = torch.linalg.eigh(torch.bmm(centred, centred.transpose(1, 2)))
    values = values.clamp(min=0)
    largest = values[:, -1:].clamp(min=torch.finfo(values.dtype).tiny)
    weights = values * (alpha * (values / largest - 1)).exp()
    return (vectors.square() * weights.unsqueeze(1)).sum(2)
