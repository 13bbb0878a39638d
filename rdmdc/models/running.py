"""The ConvNet of the condensation literature, as functions of its weights.

Weights are a dict of tensors, which is what safetensors holds, an optimiser takes and a random
network is: Φ_θ with θ ~ P_θ (Eq. 2) is ``network.embed(network.draw(generator), inputs)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rdmdc.models.native import convnet as native
from rdmdc.errors import InputError

# images at once: on a CPU so few that their activations stay in its cache
CHUNK = {"cpu": 16, "cuda": 1024}
GRADIENT_CHUNK = {"cpu": 64, "cuda": 512}

Weights = dict[str, Tensor]


class NetworkError(InputError):
    """A network that does not fit its images."""


@dataclass(frozen=True)
class ConvNet(native.Sizes):
    """``depth`` blocks of 3 × 3 convolution, instance norm, ReLU, 2 × 2 average pool; one linear.

    The embedding Φ is the last block, flattened: D = width · (side / 2^depth)², 2048 for 128 × 4².
    Images whose side is no multiple of 2^depth are padded before the first block, 28 to 32.
    """

    def __post_init__(self) -> None:
        if self.padded - self.side > self.side // 2 or (self.padded - self.side) % 2:
            raise NetworkError(
                f"network.depth {self.depth} does not fit images of side {self.side};"
                f" choose a side that {2**self.depth} divides, or a smaller depth"
            )

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

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Raise NetworkError unless names and shapes are those of this network's weights."""
        own, found = (
            {name: tuple(value.shape) for name, value in some.items()}
            for some in (self.draw(Generator()), weights)
        )
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                raise NetworkError(
                    f"weights {name} of shape {found.get(name)}, this network has {own.get(name)}"
                )

    def embed(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        x = inputs.contiguous(memory_format=torch.channels_last)
        padding = 1 + (self.padded - self.side) // 2
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
    """Embeddings (N, D), differentiable once; where they run uncompiled, so many at a time."""
    if native.running and native.supports(network, inputs.device.type):
        return native.embed(network, weights, inputs)
    return _in_chunks(network, weights, inputs, chunk)


def logits(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """Class scores (N, classes), differentiable once."""
    embeddings = embed(network, weights, inputs, chunk)
    return F.linear(embeddings, weights["linear.weight"], weights["linear.bias"])


def logits_for_weights(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Class scores (N, classes), whose gradients by weights are differentiable by inputs."""
    if native.running and native.supports(network, inputs.device.type):
        return logits(network, weights, inputs, len(inputs))
    return network.logits(weights, inputs)


@torch.no_grad()
def embed_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Embeddings (N, D) without gradients."""
    return embed(network, weights, inputs, CHUNK[inputs.device.type])


@torch.no_grad()
def logits_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Class scores (N, classes) without gradients."""
    return logits(network, weights, inputs, CHUNK[inputs.device.type])


def even_chunk(count: int, each: int, device: str) -> int:
    """How many of ``count`` groups of ``each`` inputs to differentiate at once.

    It is the size of the fewest equal chunks of about GRADIENT_CHUNK inputs.
    """
    chunks = -(-count * each // GRADIENT_CHUNK[device])
    return -(-count // min(chunks, count))


def _in_chunks(
    network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor, chunk: int
) -> Tensor:
    """Embed chunk by chunk. The last chunk is padded with zeros, which no output sees: one shape
    is compiled, and an input's result does not depend on how many follow it."""
    on_gpu = inputs.device.type == "cuda"
    run = _compiled(network, chunk) if _compiling and on_gpu else network.embed
    missing = -len(inputs) % chunk
    padded = F.pad(inputs, (0, 0) * (inputs.ndim - 1) + (0, missing)) if missing else inputs
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=_precision == "bfloat16"):
        embedded = [run(weights, part) for part in padded.split(chunk)]
    return torch.cat(embedded)[: len(inputs)].float()


_compiling = False
_precision = "float32"


def compiling(wanted: bool, device: str, width: int, precision: str = "float32") -> str | None:
    """Run networks compiled from now on, or not; the reason why not where it cannot be.

    On a CPU they run by ``convnet.c``, on a GPU by torch.compile; both differ from the uncompiled
    ones in rounding only. What was compiled is kept on disk, in the user's cache folder. In
    precision "bfloat16" convolutions with frozen weights take factors of bf16; norms and sums stay
    float32. NetworkError where the compiled kernels cannot do that on this processor.
    """
    global _compiling, _precision
    reason = None
    if wanted and device == "cpu":
        reason = native.cannot(width)
    _compiling, _precision = wanted and reason is None, precision
    native.running = _compiling and device == "cpu"
    native.half = native.running and precision == "bfloat16"
    if native.half and not native.has_half():
        raise NetworkError(
            "precision is bfloat16, but this processor has no products of it (AVX-512 BF16);"
            " set precision: float32"
        )
    return reason


def arithmetic(device: str) -> dict[str, str | int | bool]:
    """What rounding depends on here: how networks run, threads, torch and the processor."""
    name = torch.cuda.get_device_name() if device == "cuda" else native.processor()
    return {
        "compiled": _compiling,
        "precision": _precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": name,
    }


@cache
def _compiled(network: ConvNet, count: int) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    # a function of its own for every shape: torch gives up on one that meets too many
    def run(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return network.embed(weights, inputs)

    run.__code__ = run.__code__.replace()
    return torch.compile(run, fullgraph=True, dynamic=False)
