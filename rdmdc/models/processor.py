"""What the processor can do: compiled kernels and checkpoints depend on it."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from pathlib import Path


def processor() -> str:
    """A name for what the processor can do: folders may be shared by machines of several kinds."""
    abilities = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        abilities = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {hashlib.sha256(abilities.encode()).hexdigest()[:8]}"
