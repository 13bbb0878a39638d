"""The multilayer perceptron of the condensation literature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.models.layers import draw_linear
from rdmdc.models.network import Network, Weights
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """Size of the multilayer perceptron."""

    hidden: int = option(
        "units of each of the two hidden layers (public DC and DM code: 128)", at_least=1
    )


@plugins.network(Options)
def mlp(channels: int, side: int, classes: int, options: Options) -> MLP:
    """Two hidden layers with ReLU on the flattened image: the MLP of DC and DM."""
    return MLP(channels, side, classes, options.hidden)


@dataclass(frozen=True)
class MLP(Network):
    """Flattened image → linear → ReLU → linear → ReLU, the embedding Φ; one linear.

    Source: ``MLP`` of the public code of Dataset Condensation with Gradient Matching (Zhao et al.
    2021) and with Distribution Matching (DM, Zhao & Bilen 2023). Deviation: images of any side and
    any number of channels, where that code knows 1 × 28 × 28 and 3 × 32 × 32.
    """

    hidden: int

    @property
    def inputs(self) -> int:
        """Values of an image."""
        return self.channels * self.side**2

    @property
    def features(self) -> int:
        """D, the embedding's length."""
        return self.hidden

    @property
    def operations(self) -> int:
        """Operations of the two hidden layers' matrix products for one image."""
        return 2 * self.hidden * (self.inputs + self.hidden)

    @property
    def activations(self) -> int:
        """Values of one image that a gradient holds: the image, two tensors of each layer."""
        return self.inputs + 4 * self.hidden

    def draw(self, generator: torch.Generator) -> Weights:
        """Random weights in PyTorch's default initialisation: U(±1/√fan-in)."""
        return {
            **draw_linear("hidden0", self.inputs, self.hidden, generator),
            **draw_linear("hidden1", self.hidden, self.hidden, generator),
            **draw_linear("linear", self.hidden, self.classes, generator),
        }

    def embed(self, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of normalised inputs (N, C, H, W), all at once, differentiable."""
        x = inputs.flatten(1)
        for name in ("hidden0", "hidden1"):
            x = torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            x = torch.nn.functional.relu(x)
        return x
