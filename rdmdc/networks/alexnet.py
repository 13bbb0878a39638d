"""The small AlexNet of the condensation literature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from rdmdc import plugins
from rdmdc.models.layers import Convolution, draw_linear, padded_side
from rdmdc.models.network import Network, Weights
from rdmdc.options import option

POOLED = (0, 1, 4)
"""The convolutions that a 2 × 2 maximum pool follows."""


@dataclass(frozen=True)
class Options:
    """Size of the AlexNet."""

    width: int = option(
        "channels of the first layer (public DC and DM code: 128); the others have 3/2, 2, 3/2 and"
        " 3/2 times as many, rounded down",
        at_least=1,
    )


@plugins.network(Options)
def alexnet(channels: int, side: int, classes: int, options: Options) -> AlexNet:
    """Five convolutions with ReLU and three maximum pools, without norms: DC's and DM's AlexNet."""
    return AlexNet(channels, side, classes, options.width)


@dataclass(frozen=True)
class AlexNet(Network):
    """Convolutions of 5, 5, 3, 3 and 3 pixels with ReLU, 2 × 2 maximum pools after 1, 2 and 5.

    With width 128 they have 128, 192, 256, 192 and 192 channels. The embedding Φ is the last pool,
    flattened: D = 192 · (side / 8)², 3072 for 32 × 32 images; one linear layer on it.

    Source: ``AlexNet`` of the public code of Dataset Condensation with Gradient Matching (Zhao et
    al. 2021) and with Distribution Matching (Zhao & Bilen 2023). Deviations: images of any side
    that fits, where that code knows 28 and 32. The first layer pads images to the next side that 8
    divides, 28 to 32, where that code pads by two more pixels whatever has one channel. Other
    widths scale all layers.
    """

    width: int

    def __post_init__(self) -> None:
        padded_side("alexnet", self.side, 3)

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions in their order."""
        padded = padded_side("alexnet", self.side, 3)
        half_more = 3 * self.width // 2
        widths = (self.channels, self.width, half_more, 2 * self.width, half_more, half_more)
        sides = (self.side, padded // 2, padded // 4, padded // 4, padded // 4)
        paddings = (2 + (padded - self.side) // 2, 2, 1, 1, 1)
        return tuple(
            Convolution(f"conv{i}", widths[i], widths[i + 1], kernel, sides[i], paddings[i])
            for i, kernel in enumerate((5, 5, 3, 3, 3))
        )

    @property
    def features(self) -> int:
        """D, the embedding's length."""
        return self.convolutions[-1].values // 4

    @property
    def operations(self) -> int:
        """Operations of the convolutions of one image."""
        return sum(layer.operations for layer in self.convolutions)

    @property
    def activations(self) -> int:
        """Values of one image that a gradient holds: three tensors of each convolution."""
        return 3 * sum(layer.values for layer in self.convolutions)

    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in)."""
        weights: Weights = {}
        for layer in self.convolutions:
            weights |= layer.draw(generator)
        return weights | draw_linear("linear", self.features, self.classes, generator)

    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        x = inputs.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.convolutions):
            x = torch.nn.functional.relu(layer.apply(weights, x))
            if i in POOLED:
                x = torch.nn.functional.max_pool2d(x, 2)
        return x.flatten(1)
