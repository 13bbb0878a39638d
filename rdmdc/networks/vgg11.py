"""VGG-11 with instance norm, as the condensation literature evaluates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from rdmdc import plugins
from rdmdc.models.layers import (
    Convolution,
    draw_linear,
    initial_norm,
    instance_norm,
    padded_side,
)
from rdmdc.models.network import Network, Weights
from rdmdc.options import option

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of the convolutions in multiples of the width; a maximum pool ends each stage."""
HALVINGS = len(STAGES)


@dataclass(frozen=True)
class Options:
    """Size of the VGG-11."""

    width: int = option(
        "channels of the first layer (public DC and DM code: 64); the others have 2, 4 and 8 times"
        " as many",
        at_least=1,
    )


@plugins.network(Options)
def vgg11(channels: int, side: int, classes: int, options: Options) -> VGG11:
    """Eight 3 × 3 convolutions with instance norm and five maximum pools: DC's and DM's VGG-11."""
    return VGG11(channels, side, classes, options.width)


@dataclass(frozen=True)
class VGG11(Network):
    """Five stages of 3 × 3 convolution, instance norm and ReLU, each ending with a 2 × 2 max pool.

    With width 64 they have 64, 128, 2 × 256, 2 × 512 and 2 × 512 channels. The embedding Φ is the
    last pool, flattened: D = 512 · (side / 32)², 512 for 32 × 32 images; one linear layer on it.

    Source: configuration A of Simonyan & Zisserman (2015), as ``VGG11`` of the public code of
    Dataset Condensation with Gradient Matching (Zhao et al. 2021) and with Distribution Matching
    (Zhao & Bilen 2023) has it: instance norm, and one linear layer instead of three. Deviations:
    images of any side that fits, where that code knows 28 and 32. The first layer pads images to
    the next side that 32 divides, 28 to 32, where that code pads by two more pixels whatever has
    one channel. Other widths scale all layers.
    """

    width: int

    def __post_init__(self) -> None:
        padded_side("vgg11", self.side, HALVINGS)

    @cached_property
    def stages(self) -> tuple[tuple[Convolution, ...], ...]:
        """The convolutions of each stage in their order."""
        padded = padded_side("vgg11", self.side, HALVINGS)
        side, padding = self.side, 1 + (padded - self.side) // 2
        inputs, count, stages = self.channels, 0, []
        for stage, multiples in enumerate(STAGES):
            layers = []
            for multiple in multiples:
                outputs = multiple * self.width
                layers.append(Convolution(f"conv{count}", inputs, outputs, 3, side, padding))
                inputs, count, side, padding = outputs, count + 1, padded >> stage, 1
            stages.append(tuple(layers))
            side = padded >> (stage + 1)
        return tuple(stages)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All convolutions in their order."""
        return tuple(layer for stage in self.stages for layer in stage)

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
        """Values of one image that a gradient holds: four tensors of each convolution."""
        return 4 * sum(layer.values for layer in self.convolutions)

    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in), norms one and zero."""
        weights: Weights = {}
        for i, layer in enumerate(self.convolutions):
            weights |= layer.draw(generator) | initial_norm(f"norm{i}", layer.outputs)
        return weights | draw_linear("linear", self.features, self.classes, generator)

    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        x = inputs.contiguous(memory_format=torch.channels_last)
        count = 0
        for stage in self.stages:
            for layer in stage:
                x = instance_norm(weights, f"norm{count}", layer.apply(weights, x))
                x = torch.nn.functional.relu(x)
                count += 1
            x = torch.nn.functional.max_pool2d(x, 2)
        return x.flatten(1)
