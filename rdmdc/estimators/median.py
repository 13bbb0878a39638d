"""The coordinate-wise median."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Estimate
from rdmdc.estimators.sorting import sort_samples


@plugins.estimator()
def median(vectors: torch.Tensor, generators: Sequence[torch.Generator], options: None) -> Estimate:
    """Coordinate-wise median (§4.5; Yin et al. 2018).

    Of an even N it is the mean of the two middle values, as numpy's, not torch's lower one.
    """
    ordered = sort_samples(vectors)
    n = vectors.shape[1]
    return Estimate((ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2, None)
