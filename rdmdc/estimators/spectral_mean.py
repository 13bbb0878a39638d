"""RDM-DC's mean calibration (Alg. 4) with the power method (Alg. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Drop, Estimate, mean_without_top
from rdmdc.options import option


@dataclass(frozen=True)
class Options(Drop):
    """What mean calibration drops, and how exactly it finds the direction."""

    power_iterations: int = option("I of Alg. 5; the paper gives no number", at_least=1)


@plugins.estimator(Options)
def spectral_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Options
) -> Estimate:
    """RDM-DC's mean calibration (Alg. 4): drop the k = ⌈drop · N⌉ largest along the top direction.

    A sample's score is |⟨r − r̄, v⟩| with v the covariance's top eigenvector by ``power_iterations``
    steps of Alg. 5 from N(0, I). §4.3 sets drop = 3ε, ε the poisoning rate within the class.
    """
    centred = vectors - vectors.mean(1, keepdim=True)
    direction = top_direction(centred, generators, options.power_iterations)
    scores = torch.bmm(centred, direction.unsqueeze(2)).squeeze(2).abs()
    return mean_without_top(vectors, scores, options.drop)


def top_direction(
    centred: torch.Tensor, generators: Sequence[torch.Generator], iterations: int
) -> torch.Tensor:
    """The power method (Alg. 5) on the covariance of centred (B, N, D): unit vectors (B, D).

    (XᵀX)ⁱ v = Xᵀ (XXᵀ)ⁱ⁻¹ X v: all steps but the ends are products with the N × N Gram matrix, and
    the D × D covariance is never formed; the factor 1 / (N − 1) cancels in the normalisation. A
    batch without spread gives zeros.
    """
    start = torch.stack([torch.randn(centred.shape[2], generator=g) for g in generators])
    transposed = centred.transpose(1, 2)
    u = _unit(torch.bmm(centred, start.to(centred).unsqueeze(2)))
    if iterations > 1:
        gram = torch.bmm(centred, transposed)
        for _ in range(iterations - 1):
            u = _unit(torch.bmm(gram, u))
    return _unit(torch.bmm(transposed, u)).squeeze(2)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (B, n, 1) at length one; zeros stay zeros."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)
