"""Minorities: small groups of points, of unknown size, that lie apart from the rest.

A direction along which a few points lie far to one side is skewed, so directions are sought that
maximise skewness (projection pursuit, Huber 1985, by FastICA's fixed point, Hyvärinen 1999). The
points are split in two along such a direction where the split explains most of the variance (Otsu
1979). What share it explains tells a group apart from a tail: 2/π = 0.64 of a Gaussian, and 1 of
two groups without spread, however unequal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

STEPS = 50  # of the fixed point, which converges within 20
TAIL = 4.0  # standard deviations beyond which skewness no longer grows: one point can't decide


@dataclass(frozen=True)
class Minority:
    """members (m,) int64: indices of the points; separation in [0, 1]: the share of the variance
    along the direction that the split explains; position (N,): each point along the direction,
    0 at the mean of the rest and 1 at the mean of the minority; spread: the rest's standard
    deviation in the same unit; among (N,) bool: the points that were split, which members of
    minorities found before are not.
    """

    members: torch.Tensor
    separation: float
    position: torch.Tensor
    spread: float
    among: torch.Tensor

    def beyond(self, margin: float) -> torch.Tensor:
        """Which points (N,) of those split lie farther than so many spreads from the rest."""
        return self.among & (self.position > margin * self.spread)


def minorities(points: torch.Tensor, smallest: int, largest: int, most: int) -> list[Minority]:
    """Up to ``most`` minorities of points (N, Q), each found without the members of those before.

    A minority has ``smallest`` to ``largest`` points; its separation says how far it stands apart.
    The result is deterministic. Fewer are returned where points run out or all that are left are
    equal.
    """
    found: list[Minority] = []
    left = torch.arange(len(points))
    while len(found) < most and smallest <= min(largest, len(left) - 1):
        one = _most_separate(points.double(), left, smallest, largest)
        if one is None:
            break
        found.append(one)
        left = left[~torch.isin(left, one.members)]
    return found


def whiten(points: torch.Tensor, components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (K,) and matrix (K, Q) to principal components of unit variance, at most so many."""
    mean = points.mean(0)
    centred = points - mean
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(points))
    variances, axes = variances.flip(0)[:components], axes.flip(1)[:, :components]
    real = variances > 1e-9 * variances[:1].clamp(min=torch.finfo(variances.dtype).tiny)
    return mean, axes[:, real] / variances[real].sqrt()


def _most_separate(
    points: torch.Tensor, left: torch.Tensor, smallest: int, largest: int
) -> Minority | None:
    """The split of greatest separation among the skewest directions of the points that are left."""
    mean, matrix = whiten(points[left], points.shape[1])
    if matrix.shape[1] == 0:
        return None
    x = (points - mean) @ matrix
    directions = skewed_directions(x[left])
    ordered = (x[left] @ directions).sort(dim=0)
    splits = [otsu(column, smallest, largest) for column in ordered.values.T]
    j = max(range(len(splits)), key=lambda j: splits[j][0])
    separation, size = splits[j]
    order, along = ordered.indices[:, j], x @ directions[:, j]
    members, rest = left[order[-size:]], left[order[:-size]]
    low, high = along[rest].mean(), along[members].mean()
    spread = float(along[rest].std(correction=0) / (high - low))
    among = torch.zeros(len(points), dtype=torch.bool)
    among[left] = True
    return Minority(members, separation, (along - low) / (high - low), spread, among)


def skewed_directions(white: torch.Tensor) -> torch.Tensor:
    """Unit directions (Q, 2Q) that locally maximise the skewness of white points (N, Q).

    The search starts from either end of each axis. The tails are limited at TAIL.
    """
    axes = torch.eye(white.shape[1], dtype=white.dtype, device=white.device)
    directions = torch.cat([axes, -axes], 1)
    for _ in range(STEPS):
        slope = (white @ directions).clamp(-TAIL, TAIL).square()
        directions = torch.nn.functional.normalize(white.T @ slope, dim=0)
    return directions


def otsu(ordered: torch.Tensor, smallest: int, largest: int) -> tuple[float, int]:
    """Best split of ascending values (N,) whose upper part has ``smallest`` to ``largest`` values.

    Returns the share of the variance that lies between the parts, and the upper part's size.
    """
    n = len(ordered)
    centred = ordered - ordered.mean()
    variance = centred.square().mean()
    above = torch.arange(smallest, min(largest, n - 1) + 1, device=ordered.device)
    total = centred.flip(0).cumsum(0)[above - 1]  # the lower part's sum is the opposite
    between = total.square() / (above * (n - above)) / variance
    best = int(between.nan_to_num(0.0).argmax())
    return float(between[best]), int(above[best])
