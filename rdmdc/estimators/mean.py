"""The plain mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Estimate


@plugins.estimator()
def mean(vectors: torch.Tensor, generators: Sequence[torch.Generator], options: None) -> Estimate:
    """The plain mean: distribution matching (DM), Eq. 2."""
    return Estimate(vectors.mean(1), vectors.new_ones(vectors.shape[:2], dtype=torch.bool))
