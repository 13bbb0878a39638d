"""ResNet-18 with instance norm, as the condensation literature evaluates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from rdmdc import plugins
from rdmdc.models.layers import Convolution, draw_linear, initial_norm, instance_norm
from rdmdc.models.network import Network, NetworkError, Weights
from rdmdc.options import option

STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""Channels of a stage in multiples of the width, and the stride of its first block."""
BLOCKS = 2  # of each stage
SMALLEST = 9  # pixels of a side of which the last stage still sees more than one


@dataclass(frozen=True)
class Options:
    """Size of the ResNet-18."""

    width: int = option(
        "channels of the first stage (public DC and DM code: 64); the others have 2, 4 and 8 times"
        " as many",
        at_least=1,
    )


@plugins.network(Options)
def resnet18(channels: int, side: int, classes: int, options: Options) -> ResNet18:
    """Eight residual blocks with instance norm for small images: DC's and DM's ResNet-18."""
    return ResNet18(channels, side, classes, options.width)


@dataclass(frozen=True)
class Block:
    """A residual block: two 3 × 3 convolutions, and a 1 × 1 one where the shape changes."""

    first: Convolution
    second: Convolution
    shortcut: Convolution | None

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The block's convolutions in the order of their weights."""
        both = (self.first, self.second)
        return both if self.shortcut is None else (*both, self.shortcut)


@dataclass(frozen=True)
class ResNet18(Network):
    """A 3 × 3 stem without pool, four stages of two residual blocks, the mean over all pixels.

    A block is relu(norm(conv(relu(norm(conv(x))))) + x), with norm(conv 1 × 1) of x where channels
    or stride change; all convolutions are without bias. With width 64 the stages have 64, 128, 256
    and 512 channels. The embedding Φ is the mean: D = 512; one linear layer on it.

    Source: He et al. (2016), as ``ResNet18`` of the public code of Dataset Condensation with
    Gradient Matching (Zhao et al. 2021) and with Distribution Matching (Zhao & Bilen 2023) has it,
    with instance norm. Deviations: the mean is over all pixels of the last stage. That code
    averages windows of 4 × 4, which is the same for images of 28 and 32 pixels and does not fit
    its last layer for those of 64. Other widths scale all layers.
    """

    width: int

    def __post_init__(self) -> None:
        if self.side < SMALLEST:
            raise NetworkError(
                f"resnet18 does not fit images of side {self.side}: its last stage would norm a"
                f" single pixel, which is always 0; choose a side of at least {SMALLEST}, or"
                " another network"
            )

    @cached_property
    def stem(self) -> Convolution:
        """The first convolution."""
        return Convolution("stem.conv", self.channels, self.width, 3, self.side, 1, bias=False)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks in their order."""
        blocks: list[Block] = []
        inputs, side = self.width, self.side
        for multiple, first_stride in STAGES:
            for stride in (first_stride, *[1] * (BLOCKS - 1)):
                block = _block(f"block{len(blocks)}", inputs, multiple * self.width, side, stride)
                blocks.append(block)
                inputs, side = block.first.outputs, block.first.side_after
        return tuple(blocks)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All convolutions in the order of their weights."""
        return (self.stem, *(layer for block in self.blocks for layer in block.convolutions))

    @property
    def features(self) -> int:
        """D, the embedding's length."""
        return self.blocks[-1].second.outputs

    @property
    def operations(self) -> int:
        """Operations of the convolutions of one image."""
        return sum(layer.operations for layer in self.convolutions)

    @property
    def activations(self) -> int:
        """Values of one image that a gradient holds: three tensors of each convolution."""
        return 3 * sum(layer.values for layer in self.convolutions)

    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in), norms one and zero."""
        weights: Weights = {}
        for layer in self.convolutions:
            weights |= layer.draw(generator) | initial_norm(_norm(layer), layer.outputs)
        return weights | draw_linear("linear", self.features, self.classes, generator)

    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        relu = torch.nn.functional.relu
        x = inputs.contiguous(memory_format=torch.channels_last)
        x = relu(_normed(weights, self.stem, x))
        for block in self.blocks:
            made = relu(_normed(weights, block.first, x))
            made = _normed(weights, block.second, made)
            x = relu(made + (x if block.shortcut is None else _normed(weights, block.shortcut, x)))
        return x.mean((2, 3))


def _block(name: str, inputs: int, outputs: int, side: int, stride: int) -> Block:
    first = Convolution(f"{name}.conv0", inputs, outputs, 3, side, 1, stride, bias=False)
    second = Convolution(f"{name}.conv1", outputs, outputs, 3, first.side_after, 1, bias=False)
    if stride == 1 and inputs == outputs:
        return Block(first, second, None)
    shortcut = Convolution(f"{name}.conv2", inputs, outputs, 1, side, 0, stride, bias=False)
    return Block(first, second, shortcut)


def _norm(layer: Convolution) -> str:
    """The name of the norm that follows a convolution."""
    return layer.name.replace("conv", "norm")


def _normed(
    weights: Mapping[str, torch.Tensor], layer: Convolution, images: torch.Tensor
) -> torch.Tensor:
    return instance_norm(weights, _norm(layer), layer.apply(weights, images))
