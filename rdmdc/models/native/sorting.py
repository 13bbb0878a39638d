"""Sorting many short columns at once by the kernels in C; the same values as torch.sort."""

from __future__ import annotations

import torch

from rdmdc.models.native.library import LANES, check, library
from rdmdc.models.network import KernelError


def can_sort(values: torch.Tensor) -> bool:
    """True if the kernels sort these values (B, N, D): float32 on a CPU, whole vectors of D.

    False too where the kernels cannot be compiled, which a network without kernels does not notice.
    """
    if values.shape[2] % LANES or values.dtype != torch.float32 or values.device.type != "cpu":
        return False
    try:
        library()
    except KernelError:
        return False
    return True


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
