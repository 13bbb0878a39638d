"""Sorting many short columns at once by the kernels in C; the same values as torch.sort."""

from __future__ import annotations

import torch

from rdmdc.models.native.library import LANES, check, library


def can_sort(values: torch.Tensor) -> bool:
    """True if the kernels sort these values (B, N, D): float32 on a CPU, whole vectors of D."""
    lanes = values.shape[2] % LANES == 0
    return lanes and values.dtype == torch.float32 and values.device.type == "cpu"


def sort_samples(values: torch.Tensor) -> torch.Tensor:
    """(B, N, D) with each feature's N values in ascending order, as torch.sort along N."""
    values = values.contiguous()
    ordered = torch.empty_like(values)
    status = library().sort_samples(
        values.data_ptr(),
        len(values),
        *values.shape[1:],
        ordered.data_ptr(),
        torch.get_num_threads(),
    )
    check(status)
    return ordered
