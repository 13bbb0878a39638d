"""The ConvNet of the condensation literature, as functions of its weights.

Weights are a dict of tensors, which is what safetensors holds, an optimiser takes and a random
network is: Φ_θ with θ ~ P_θ (Eq. 2) is ``network.embed(network.draw(generator), inputs)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

CHUNK = 16  # images embedded at once: their activations stay in the processor's cache

Weights = dict[str, Tensor]


class NetworkError(ValueError):
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


@torch.no_grad()
def embed_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Embeddings (N, D) of any number of inputs, chunk by chunk, without gradients."""
    return torch.cat([network.embed(weights, part) for part in inputs.split(CHUNK)])


@torch.no_grad()
def logits_all(network: ConvNet, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Class scores (N, classes) of any number of inputs, chunk by chunk, without gradients."""
    return torch.cat([network.logits(weights, part) for part in inputs.split(CHUNK)])
