"""The ConvNet of the condensation literature (§5.1 uses it with width 128 and depth 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.models.network import Kernels, Learner, Network, NetworkError, Weights, uniform
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """Size of the ConvNet."""

    width: int = option("channels of each block (§5.1 with the public DM code: 128)", at_least=1)
    depth: int = option("blocks; 3 for 32 × 32 images, 4 for 64 × 64", at_least=1, at_most=8)


@plugins.network(Options)
def convnet(channels: int, side: int, classes: int, options: Options) -> ConvNet:
    """Blocks of convolution, instance norm, ReLU and average pool: the ConvNet of DC and DM."""
    return ConvNet(channels, side, classes, options.width, options.depth)


@dataclass(frozen=True)
class ConvNet(Network):
    """``depth`` blocks of 3 × 3 convolution, instance norm, ReLU, 2 × 2 average pool; one linear.

    The embedding Φ is the last block, flattened: D = width · (side / 2^depth)², 2048 for 128 × 4².
    Images whose side is no multiple of 2^depth are padded before the first block, 28 to 32.
    """

    width: int
    depth: int

    def __post_init__(self) -> None:
        if self.padded - self.side > self.side // 2 or (self.padded - self.side) % 2:
            raise NetworkError(
                f"the ConvNet's depth {self.depth} does not fit images of side {self.side};"
                f" choose a side that {2**self.depth} divides, or a smaller depth"
            )

    @property
    def padded(self) -> int:
        """The side that the first block sees: the next that 2^depth divides."""
        return -(-self.side // 2**self.depth) * 2**self.depth

    @property
    def features(self) -> int:
        """D, the embedding's length."""
        return self.width * (self.padded // 2**self.depth) ** 2

    @property
    def operations(self) -> int:
        """Operations of the convolutions of one image."""
        fan_in = [self.channels, *[self.width] * (self.depth - 1)]
        return sum(
            2 * 9 * channels * self.width * (self.padded >> block) ** 2
            for block, channels in enumerate(fan_in)
        )

    @property
    def activations(self) -> int:
        """Values of one image that a gradient holds: four tensors of each block."""
        return 4 * sum(self.width * (self.padded >> block) ** 2 for block in range(self.depth))

    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in), norms one and zero."""
        weights: Weights = {}
        fan_in = self.channels
        for block in range(self.depth):
            kernels = (self.width, fan_in, 3, 3)
            weights[f"conv{block}.weight"] = uniform(kernels, fan_in * 9, generator)
            weights[f"conv{block}.bias"] = uniform((self.width,), fan_in * 9, generator)
            weights[f"norm{block}.weight"] = torch.ones(self.width)
            weights[f"norm{block}.bias"] = torch.zeros(self.width)
            fan_in = self.width
        matrix = (self.classes, self.features)
        weights["linear.weight"] = uniform(matrix, self.features, generator)
        weights["linear.bias"] = uniform((self.classes,), self.features, generator)
        return weights

    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        layers = torch.nn.functional
        x = inputs.contiguous(memory_format=torch.channels_last)
        padding = 1 + (self.padded - self.side) // 2
        for block in range(self.depth):
            x = layers.conv2d(
                x,
                weights[f"conv{block}.weight"],
                weights[f"conv{block}.bias"],
                padding=padding,
            )
            x = layers.group_norm(
                x,
                self.width,
                weights[f"norm{block}.weight"],
                weights[f"norm{block}.bias"],
            )
            x = layers.avg_pool2d(layers.relu(x), 2)
            padding = 1
        return x.flatten(1)

    def kernels(self, device: str, precision: str) -> Kernels | None:
        """The kernels in C on a CPU; on other devices there are none."""
        if device != "cpu":
            return None
        from rdmdc.models.native import convnet as native  # loads torch, which planning need not

        return native.kernels(self, precision)

    def learner(self, device: str) -> Learner | None:
        """A training step by the kernels in C on a CPU."""
        if device != "cpu":
            return None
        from rdmdc.models.native.learning import learn

        return partial(learn, self)

    def products(self, device: str, precision: str) -> str:
        """On a CPU what the kernels in C choose for this processor."""
        if device != "cpu":
            return precision
        from rdmdc.models.native.products import products

        return products(precision).described
