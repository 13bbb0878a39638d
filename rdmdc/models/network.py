"""The interface of a network family: functions of a dict of weights.

Weights are a dict of tensors, which is what safetensors holds, an optimiser takes and a random
network is: Φ_θ with θ ~ P_θ (Eq. 2) is ``network.embed(network.draw(generator), inputs)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch

from rdmdc.errors import InputError

Weights = dict[str, "torch.Tensor"]
Kernels = Callable[[Mapping[str, "torch.Tensor"], "torch.Tensor"], "torch.Tensor"]
"""Embeddings (N, D) of weights and inputs (N, C, H, W), differentiable, by compiled code."""

Learner = Callable[
    [Mapping[str, "torch.Tensor"], "torch.Tensor", "torch.Tensor"],
    tuple["torch.Tensor", Weights],
]
"""Mean cross-entropy () of weights, inputs (N, C, H, W) and labels (N,), and its gradients by the
weights that have one, by compiled code."""


class NetworkError(InputError):
    """A network that does not fit its images, its weights or this machine."""


class KernelError(NetworkError):
    """A family's compiled kernels cannot be made or run here; the network runs uncompiled."""


@dataclass(frozen=True)
class Network(ABC):
    """A family at one size: images (channels, side, side) to an embedding, then class scores.

    The last layer is linear on the embedding Φ, with weights linear.weight (classes, D) and
    linear.bias (classes,). A network keeps no state, and an image's embedding does not depend on
    the images beside it.
    """

    channels: int
    side: int
    classes: int

    @property
    @abstractmethod
    def features(self) -> int:
        """D, the embedding's length."""

    @property
    @abstractmethod
    def operations(self) -> int:
        """Floating-point operations of one image's embedding; multiply and add are two."""

    @property
    @abstractmethod
    def activations(self) -> int:
        """Values of one image that its gradient needs, about."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation."""

    @abstractmethod
    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""

    def logits(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Class scores (N, classes), all at once, differentiable."""
        return classify(weights, self.embed(weights, inputs))

    def kernels(self, device: str, precision: str) -> Kernels | None:
        """A compiled backend for a device, None where the family has none.

        ``precision`` is float32 or bfloat16. Raises KernelError where the family has one that
        cannot be compiled here.
        """
        return None

    def learner(self, device: str) -> Learner | None:
        """A compiled training step beside the `kernels`, None where the family has none."""
        return None

    def products(self, device: str, precision: str) -> str:
        """What the products of a compiled network with frozen weights are of: results differ by it.

        It is the precision itself, unless what the processor has decides it.
        """
        return precision

    def check(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raise NetworkError unless names and shapes are those of this network's weights."""
        own, found = (
            {name: tuple(value.shape) for name, value in some.items()}
            for some in (self.draw(torch.Generator()), weights)
        )
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                raise NetworkError(
                    f"weights {name} of shape {found.get(name)}, this network has {own.get(name)}"
                )


def classify(weights: Mapping[str, torch.Tensor], embeddings: torch.Tensor) -> torch.Tensor:
    """Class scores (N, classes) of embeddings (N, D) by the last layer."""
    return torch.nn.functional.linear(embeddings, weights["linear.weight"], weights["linear.bias"])


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> torch.Tensor:
    """PyTorch's default initialisation of a layer: U(±1/√fan-in)."""
    bound = 1 / sqrt(fan_in)
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
