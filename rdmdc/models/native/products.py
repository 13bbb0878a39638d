"""What the factors of the kernels' products are, by what the processor has."""

from __future__ import annotations

from enum import IntEnum

from rdmdc.models.native.library import library


class Products(IntEnum):
    """Factors of a convolution's products with frozen weights, as in convnet.h."""

    SINGLE = 0  # float32, transformed by Winograd's F(4, 3)
    PAIRS = 1  # the same rounded to bf16
    AMX = 2  # bf16 as they are, a direct convolution

    @property
    def described(self) -> str:
        """In words, for logs and checkpoints."""
        return ("float32", "bfloat16:avx512", "bfloat16:amx")[self]


def products(precision: str) -> Products:
    """What a precision's products are of on this processor; raises KernelError as `library`."""
    own = Products(library().half_products())
    return own if precision == "bfloat16" else Products.SINGLE
