"""Layers that network families are made of: records of sizes, and functions of a weight dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rdmdc.models.network import NetworkError, Weights, uniform


@dataclass(frozen=True)
class Convolution:
    """A square convolution of images (N, inputs, side, side); its weights begin with its name."""

    name: str
    inputs: int  # channels
    outputs: int  # channels
    kernel: int  # pixels of its side
    side: int  # pixels of the images that it is applied to, without padding
    padding: int
    stride: int = 1
    bias: bool = True

    @property
    def side_after(self) -> int:
        """Side of its output, in pixels."""
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def values(self) -> int:
        """Values of one image's output."""
        return self.outputs * self.side_after**2

    @property
    def operations(self) -> int:
        """Floating-point operations of one image; multiply and add are two."""
        return 2 * self.inputs * self.kernel**2 * self.values

    def draw(self, generator: torch.Generator) -> Weights:
        """Random kernels (outputs, inputs, kernel, kernel), then biases (outputs,)."""
        shape = (self.outputs, self.inputs, self.kernel, self.kernel)
        fan_in = self.inputs * self.kernel**2
        weights = {f"{self.name}.weight": uniform(shape, fan_in, generator)}
        if self.bias:
            weights[f"{self.name}.bias"] = uniform((self.outputs,), fan_in, generator)
        return weights

    def apply(self, weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Images (N, outputs, side_after, side_after)."""
        return torch.nn.functional.conv2d(
            images,
            weights[f"{self.name}.weight"],
            weights[f"{self.name}.bias"] if self.bias else None,
            self.stride,
            self.padding,
        )


def draw_linear(name: str, inputs: int, outputs: int, generator: torch.Generator) -> Weights:
    """Random matrix (outputs, inputs) and biases (outputs,) of a linear layer."""
    return {
        f"{name}.weight": uniform((outputs, inputs), inputs, generator),
        f"{name}.bias": uniform((outputs,), inputs, generator),
    }


def initial_norm(name: str, channels: int) -> Weights:
    """Gains of one and offsets of zero (channels,) of an instance norm."""
    return {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}


def instance_norm(
    weights: Mapping[str, torch.Tensor], name: str, images: torch.Tensor
) -> torch.Tensor:
    """Each channel of each image with mean 0 and variance 1 over its pixels, then scaled."""
    return torch.nn.functional.group_norm(
        images, images.shape[1], weights[f"{name}.weight"], weights[f"{name}.bias"]
    )


def padded_side(family: str, side: int, halvings: int) -> int:
    """The side that the first layer pads images to, so that pooling can halve it so often.

    Raises NetworkError where that is more than half of the side again, or an odd number of pixels.
    """
    factor = 2**halvings
    padded = -(-side // factor) * factor
    if padded - side > side // 2 or (padded - side) % 2:
        raise NetworkError(
            f"{family} does not fit images of side {side}, which it halves {halvings} times;"
            f" choose a side that {factor} divides, or another network"
        )
    return padded
