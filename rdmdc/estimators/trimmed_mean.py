"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rdmdc import plugins, rates
from rdmdc.estimators.estimate import Drop, Estimate
from rdmdc.estimators.sorting import sort_samples


@plugins.estimator(Drop)
def trimmed_mean(
    vectors: torch.Tensor, generators: Sequence[torch.Generator], options: Drop
) -> Estimate:
    """Coordinate-wise mean without the ⌊k/2⌋ smallest and ⌊k/2⌋ largest (§4.5), k = ⌈drop · N⌉."""
    n = vectors.shape[1]
    side = rates.dropped(options.drop, n) // 2
    return Estimate(sort_samples(vectors)[:, side : n - side].mean(1), None)
