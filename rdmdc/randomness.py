"""Random draws: each is seeded by the name of its purpose, and there is no other random state.

A generator made anew for (seed, "condense", run, iteration, class) gives the same numbers in a
resumed job, for a lone estimator and in a panel, on every device: numbers are drawn on the CPU.
"""

from __future__ import annotations

import hashlib
import json

import torch


def generator(*purpose: int | str) -> torch.Generator:
    """A CPU generator seeded by what its draws are for.

    ``purpose`` is hashed as JSON, so that ("a", 1) and ("a1",) differ, and 1 and "1" too.
    """
    text = json.dumps(purpose).encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(seed)
