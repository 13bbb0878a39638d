"""The ConvNet of the condensation literature, as functions of its weights.

Weights are a dict of tensors, which is what safetensors holds, an optimiser takes and a random
network is: Φ_θ with θ ~ P_θ (Eq. 2) is ``network.embed(network.draw(generator), inputs)``.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rdmdc.errors import InputError

# images at once: on a CPU so few that their activations stay in its cache
CHUNK = {"cpu": 16, "cuda": 1024}
GRADIENT_CHUNK = {"cpu": 64, "cuda": 512}

Weights = dict[str, Tensor]


class NetworkError(InputError):
    """A network that does not fit its images."""


@dataclass(frozen=True)
class ConvNet:
    """``depth`` blocks of 3 × 3 convolution, instance norm, ReLU, 2 × 2 average pool; one linear.

    The embedding Φ is the last block, flattened: D = width · (side / 2^depth)², 2048 for 128 × 4².
    Images whose side is no multiple of 2^depth are padded before the first block, 28 to 32.
    """

    channels: int
    side: int
    classes: int
    width: int
    depth: int

    def __post_init__(self) -> None:
        if self._padded() - self.side > self.side // 2 or (self._padded() - self.side) % 2:
            raise NetworkError(
                f"network.depth {self.depth} does not fit images of side {self.side};"
                f" choose a side that {2**self.depth} divides, or a smaller depth"
            )

    def _padded(self) -> int:
        return -(-self.side // 2**self.depth) * 2**self.depth

    @property
    def features(self) -> int:
        """D, the embedding's length."""
        return self.width * (self._padded() // 2**self.depth) ** 2

    def draw(self, generator: Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in), norms one and zero."""
        weights: Weights = {}
        fan_in = self.channels
        for block in range(self.depth):
            kernels = (self.width, fan_in, 3, 3)
            weights[f"conv{block}.weight"] = _uniform(kernels, fan_in * 9, generator)
            weights[f"conv{block}.bias"] = _uniform((self.width,), fan_in * 9, generator)
            weights[f"norm{block}.weight"] = torch.ones(self.width)
            weights[f"norm{block}.bias"] = torch.zeros(self.width)
            fan_in = self.width
        matrix = (self.classes, self.features)
        weights["linear.weight"] = _uniform(matrix, self.features, generator)
        weights["linear.bias"] = _uniform((self.classes,), self.features, generator)
        return weights

    def embed(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        x = inputs.contiguous(memory_format=torch.channels_last)
        padding = 1 + (self._padded() - self.side) // 2
        for block in range(self.depth):
            x = F.conv2d(
                x,
                weights[f"conv{block}.weight"],
                weights[f"conv{block}.bias"],
                padding=padding,
            )
            x = F.group_norm(
                x,
                self.width,
                weights[f"norm{block}.weight"],
                weights[f"norm{block}.bias"],
            )
            x = F.avg_pool2d(F.relu(x), 2)
            padding = 1
        return x.flatten(1)

    def logits(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Class scores (N, classes), all at once, differentiable."""
        embeddings = self.embed(weights, inputs)
        return F.linear(embeddings, weights["linear.weight"], weights["linear.bias"])


def _uniform(shape: tuple[int, ...], fan_in: int, generator: Generator) -> Tensor:
    bound = 1 / sqrt(fan_in)
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def to(weights: Mapping[str, Tensor], device: torch.device | str) -> Weights:
    """The weights on a device, convolutions in channels-last order."""
    return {
        name: value.to(
            device,
            memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format,
        )
        for name, value in weights.items()
    }


# --- running them fast -----------------------------------------------------------------------


def embed(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """Embeddings (N, D), differentiable once, so many inputs at a time."""
    return _in_chunks(network, "embed", weights, inputs, chunk)


def logits(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """Class scores (N, classes), differentiable once, so many inputs at a time."""
    return _in_chunks(network, "logits", weights, inputs, chunk)


@torch.no_grad()
def embed_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Embeddings (N, D) without gradients."""
    return _in_chunks(network, "embed", weights, inputs, CHUNK[inputs.device.type])


@torch.no_grad()
def logits_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Class scores (N, classes) without gradients."""
    return _in_chunks(network, "logits", weights, inputs, CHUNK[inputs.device.type])


def even_chunk(count: int, each: int, device: str) -> int:
    """How many of ``count`` groups of ``each`` inputs to differentiate at once.

    It is the size of the fewest equal chunks of about GRADIENT_CHUNK inputs.
    """
    chunks = -(-count * each // GRADIENT_CHUNK[device])
    return -(-count // min(chunks, count))


def _in_chunks(
    network: ConvNet, method: str, weights: Mapping[str, Tensor], inputs: Tensor, chunk: int
) -> Tensor:
    """Run a method chunk by chunk. The last chunk is padded with zeros, which no output sees: one
    shape is compiled, and an input's result does not depend on how many follow it."""
    run = _runner(network, method, chunk, inputs.device.type)
    missing = -len(inputs) % chunk
    padded = F.pad(inputs, (0, 0) * (inputs.ndim - 1) + (0, missing)) if missing else inputs
    return torch.cat([run(weights, part) for part in padded.split(chunk)])[: len(inputs)]


Run = Callable[[Mapping[str, Tensor], Tensor], Tensor]
_compiling = False


def compiling(wanted: bool) -> str | None:
    """Compile networks from now on, or not; the reason why not where it is wanted and cannot be.

    Compiled and eager networks differ in rounding only. Compilation takes half a minute a shape,
    once a machine: it is kept on disk, in TORCHINDUCTOR_CACHE_DIR or the user's cache folder.
    """
    global _compiling
    reason = _cannot_compile() if wanted else None
    _compiling = wanted and reason is None
    return reason


def _cannot_compile() -> str | None:
    """Why torch.compile could not work here: it needs a compiler, Python's headers, a cache."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler}"
    if not headers.is_file():
        return f"Python's headers are not installed ({headers})"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(cache, "rdmdc", "inductor").expanduser()
        folder = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder)))
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        return f"there is no folder for its cache ({error}); set TORCHINDUCTOR_CACHE_DIR"
    if not os.access(folder, os.W_OK):
        return f"its cache {folder} cannot be written; set TORCHINDUCTOR_CACHE_DIR"
    return None


def _runner(network: ConvNet, method: str, count: int, device: str) -> Run:
    """A network's method for ``count`` inputs: compiled or as it is written."""
    plain: Run = getattr(network, method)
    return _compiled(network, method, count, device) if _compiling else plain


@cache
def _compiled(network: ConvNet, method: str, count: int, device: str) -> Run:
    # a function of its own for every shape: torch gives up on one that meets too many
    return torch.compile(_copy(getattr(network, method)), fullgraph=True, dynamic=False)


def _copy(method: Run) -> Run:
    """The method under a code object of its own, so that shapes do not share a compile limit."""

    def run(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return method(weights, inputs)

    run.__code__ = run.__code__.replace()
    return run
