"""Sorting each feature's values, for the median and the trimmed mean."""

from __future__ import annotations

import torch

from rdmdc.models import running


def sort_samples(values: torch.Tensor) -> torch.Tensor:
    """(B, N, D) with each feature's N values in ascending order; the kernels give the same."""
    if running.compiled():
        from rdmdc.models.native import sorting  # loads torch, which planning need not

        if sorting.can_sort(values):  # False where the kernels cannot be compiled
            return sorting.sort_samples(values)
    return values.sort(dim=1).values
