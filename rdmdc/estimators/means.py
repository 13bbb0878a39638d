"""Estimators of a class's mean embedding: (B, N, D) embeddings to (B, D) means, the paper's core.

B classes, N embeddings a class, D features. Each takes one generator per class, so that a class
draws the same numbers whatever is beside it, and options from its entry in the config.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from rdmdc import rates
from rdmdc.models.native.convnet import sort_samples


@dataclass(frozen=True)
class Estimate:
    """value (B, D); kept (B, N) bool: what it averages, None where that differs by feature."""

    value: Tensor
    kept: Tensor | None


def mean(embeddings: Tensor, generators: Sequence[Generator]) -> Estimate:
    """The plain mean: distribution matching (DM), Eq. 2."""
    return Estimate(embeddings.mean(1), embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool))


def median(embeddings: Tensor, generators: Sequence[Generator]) -> Estimate:
    """Coordinate-wise median (§4.5; Yin et al. 2018).

    Of an even N it is the mean of the two middle values, as numpy's, not torch's lower one.
    """
    ordered = sort_samples(embeddings)
    n = embeddings.shape[1]
    return Estimate((ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2, None)


def trimmed_mean(embeddings: Tensor, generators: Sequence[Generator], *, drop: str) -> Estimate:
    """Coordinate-wise mean without the ⌊k/2⌋ smallest and ⌊k/2⌋ largest (§4.5), k = ⌈drop · N⌉."""
    n = embeddings.shape[1]
    side = rates.dropped(drop, n) // 2
    return Estimate(sort_samples(embeddings)[:, side : n - side].mean(1), None)


def truncated_mean(embeddings: Tensor, generators: Sequence[Generator], *, drop: str) -> Estimate:
    """Mean without the k = ⌈drop · N⌉ embeddings farthest from the plain mean (§4.5)."""
    centred = embeddings - embeddings.mean(1, keepdim=True)
    return _mean_without_top(embeddings, centred.square().sum(2), drop)


def spectral_mean(
    embeddings: Tensor,
    generators: Sequence[Generator],
    *,
    drop: str,
    power_iterations: int,
) -> Estimate:
    """RDM-DC's mean calibration (Alg. 4): drop the k = ⌈drop · N⌉ largest along the top direction.

    A sample's score is |⟨r − r̄, v⟩| with v the covariance's top eigenvector by ``power_iterations``
    steps of Alg. 5 from N(0, I). §4.3 sets drop = 3ε, ε the poisoning rate within the class.
    """
    centred = embeddings - embeddings.mean(1, keepdim=True)
    direction = top_direction(centred, generators, power_iterations)
    scores = torch.bmm(centred, direction.unsqueeze(2)).squeeze(2).abs()
    return _mean_without_top(embeddings, scores, drop)


def top_direction(centred: Tensor, generators: Sequence[Generator], iterations: int) -> Tensor:
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


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (B, n, 1) at length one; zeros stay zeros."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)


def random_mean(embeddings: Tensor, generators: Sequence[Generator], *, drop: str) -> Estimate:
    """Mean without k = ⌈drop · N⌉ embeddings chosen at random.

    Not in the paper: the control that tells what dropping so many does by itself.
    """
    n = embeddings.shape[1]
    scores = torch.stack([torch.rand(n, generator=g) for g in generators])
    return _mean_without_top(embeddings, scores.to(embeddings.device), drop)


def _mean_without_top(embeddings: Tensor, scores: Tensor, drop: str) -> Estimate:
    """Mean of embeddings (B, N, D) without the k of highest score (B, N); ties drop the earlier."""
    n = scores.shape[1]
    k = rates.dropped(drop, n)
    order = scores.argsort(dim=1, descending=True, stable=True)
    kept = torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :k], False)
    total = torch.bmm(kept.to(embeddings).unsqueeze(1), embeddings).squeeze(1)
    return Estimate(total / (n - k), kept)


Estimator = Callable[..., Estimate]
ESTIMATORS: dict[str, Estimator] = {
    f.__name__: f for f in (mean, median, trimmed_mean, truncated_mean, spectral_mean, random_mean)
}
