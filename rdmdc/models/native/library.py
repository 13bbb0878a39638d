"""The kernels in C: compiled once a machine, kept in the user's cache folder and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from rdmdc.models.network import KernelError
from rdmdc.models.processor import processor

FILES = ("convnet.c", "amx.c", "learning.c", "convnet.h")
SOURCES = [Path(__file__).with_name(name) for name in FILES]
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-fopenmp")  # the OpenMP that torch loaded
LANES = 16  # channels in a vector, as in convnet.c


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels; raises KernelError with the reason where there can be none."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise KernelError(f"there is no C compiler {compiler}")
    kind = f"{FLAGS} {compiler} {processor()}".encode()
    name = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES) + kind).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rdmdc").expanduser()
    path = folder / f"convnet-{name}.so"
    try:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _compile(compiler, path)
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path}: {error}; set XDG_CACHE_HOME") from error
    loaded.half_products()  # asks the operating system for AMX's registers
    _keep_pages()
    at, number = ctypes.c_void_p, ctypes.c_int
    loaded.forward.argtypes = [at, at, number, at, at, number]
    loaded.backward.argtypes = [at, at, number, at, at, at, at, number, number]
    loaded.tangents.argtypes = [at, at, at, number, at, at, at, at, number]
    loaded.learn.argtypes = [at, at, at, at, number, at, number, number]
    loaded.sort_samples.argtypes = [at, number, number, ctypes.c_long, at, number]
    return loaded


def _keep_pages() -> None:
    """Let glibc use freed memory again: fresh pages for every temporary tensor cost a tenth."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in glibc's malloc.h
            mallopt(option, 1 << 30)


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        command = [compiler, *FLAGS, "-o", str(made), *map(str, SOURCES[:-1]), "-lm"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines()
            why = lines[-1] if lines else f"exit code {run.returncode}"
            raise KernelError(f"{compiler} fails: {why}")
        os.replace(made, path)


def check(status: int) -> None:
    """Raise KernelError where a kernel reports that it found no memory."""
    if status:
        raise KernelError("there is no memory for the network's scratch; lower the batch")
