"""The directions in which one class varies most compared with the other classes.

The directions of largest variance in a diverse class are natural ones (brightness, colour, layout)
that all classes share; poisons add a direction that only their class has. It is a top eigenvector
w of the generalised problem S_c w = κ (S_o + λI) w: contrastive PCA (Abid et al. 2018) as a ratio,
or the whitening of SPECTRE (Hayase et al. 2021) by the other classes instead of by the class
itself, which the poisons contaminate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from rdmdc.errors import InputError

FEWEST = 4  # directions iterated together: the first converges at the rate of the fifth eigenvalue


class ContrastError(InputError):
    """There is nothing to compare a class with."""


@dataclass(frozen=True)
class Contrast:
    """Top directions (D, K) of a class and their variance ratios (K,), largest first.

    Each direction w has wᵀ(S_o + λI)w = 1, so that a projection on it counts standard deviations
    of the other classes, and the class's variance along it is the ratio κ.
    """

    directions: torch.Tensor
    ratios: torch.Tensor


def top_contrast(
    centred: torch.Tensor,
    others: torch.Tensor,
    ridge: float,
    iterations: int,
    generator: torch.Generator,
    wanted: int = 3,
) -> Contrast:
    """Top generalised eigenvectors of (S_c, S_o + λI) by block power iteration.

    A block of a third more directions than are ``wanted``, and of four at least, is iterated
    together; all of the block are returned, of which the last have not converged.

    centred (N, D) are a class's vectors without their mean and S_c = XᵀX / N; others (R, D) are
    rows of other classes, each without its own class's mean, and S_o = OᵀO / R. λ is ``ridge``
    times the mean of S_o's non-zero eigenvalues. The inverse is applied by Woodbury's identity
    with an R × R Cholesky factor; no D × D matrix is formed. ``generator`` draws the start.
    Raises ContrastError where others do not vary.
    """
    rows, features = others.shape
    total = float(others.square().sum())
    if total == 0:
        raise ContrastError(
            f"the {rows} vectors of other classes that a class is compared with do not vary;"
            " a contrast needs a second class with at least two different images"
        )
    mean_variance = total / rows / min(rows, features)
    scaled = others / (rows * mean_variance) ** 0.5  # S_o's mean non-zero eigenvalue becomes one
    gram = scaled @ scaled.T
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)
    block = min(max(FEWEST, ceil(4 * wanted / 3)), *centred.shape)
    v = torch.randn(features, block, generator=generator).to(centred)
    if len(centred) < rows:  # iterate on X v, which is shorter than v and than O v
        v = _step(centred, scaled, factor, _iterated(centred, scaled, factor, v, iterations - 1))
    else:
        for _ in range(iterations):
            v = _step(centred, scaled, factor, centred @ v)
    # Rayleigh-Ritz: solve the same problem among the combinations of the block's directions
    own, theirs = centred @ v, scaled @ v
    root = torch.linalg.cholesky(theirs.T @ theirs + ridge * (v.T @ v))
    ratios, turns = torch.linalg.eigh(_congruent(root, own.T @ own / len(own)))
    combined = v @ torch.linalg.solve_triangular(root.T, turns.flip(1), upper=True)
    return Contrast(combined / mean_variance**0.5, ratios.flip(0).clamp(min=0) / mean_variance)


def _step(
    centred: torch.Tensor, scaled: torch.Tensor, factor: torch.Tensor, along: torch.Tensor
) -> torch.Tensor:
    """The next block v (D, K), orthonormal, of the one before, v', by along = X v' (N, K)."""
    v = centred.T @ along
    v = v - scaled.T @ torch.cholesky_solve(scaled @ v, factor)  # ridge (S_o + λI)⁻¹ Xᵀ X v'
    return torch.linalg.qr(v)[0]


def _iterated(
    centred: torch.Tensor,
    scaled: torch.Tensor,
    factor: torch.Tensor,
    v: torch.Tensor,
    iterations: int,
) -> torch.Tensor:
    """X v (N, K) after so many steps from a block v (D, K), up to a basis of the same space.

    A step is X v ← X ridge (S_o + λI)⁻¹ Xᵀ X v, a product with an N × N matrix.
    """
    across = torch.linalg.solve_triangular(factor, scaled @ centred.T, upper=False)
    matrix = centred @ centred.T - across.T @ across
    along = centred @ v
    for _ in range(iterations):
        along = torch.linalg.qr(matrix @ along)[0]
    return along


def _congruent(root: torch.Tensor, symmetric: torch.Tensor) -> torch.Tensor:
    """L⁻¹ S L⁻ᵀ of a lower triangular L and a symmetric S, both (K, K)."""
    half = torch.linalg.solve_triangular(root, symmetric, upper=False)
    return torch.linalg.solve_triangular(root, half.T, upper=False)
