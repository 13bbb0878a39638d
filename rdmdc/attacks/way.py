"""The way from a class to the target in the embeddings of one random network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc.attacks.crafting import Crafting, Purpose, Scene, clean_images, embed
from rdmdc.options import option
from rdmdc.randomness import generator


@dataclass(frozen=True)
class OnTheWay(Crafting):
    """As crafting, and what the way from a class to the target is found from."""

    class_images: int = option("images of a class that its mean is estimated from", at_least=2)


@dataclass(frozen=True)
class Way:
    """mean (D,): of clean images of the adversarial class; step (D,): from there to the target."""

    mean: torch.Tensor
    step: torch.Tensor

    @property
    def length(self) -> torch.Tensor:
        """Squared length of the step."""
        return self.step.square().sum()

    def places(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Places (n,) of embeddings (n, D) on the way: 0 at the class's mean, 1 at the target."""
        return (embeddings - self.mean) @ self.step / self.length


def way_to_target(scene: Scene, crafting: Crafting, class_images: int, purpose: Purpose) -> Way:
    """The way in the network and under the augmentation of a purpose; a constant for gradients.

    The mean is that of ``class_images`` clean images, drawn for the purpose.
    """
    label = scene.target.adversarial_label
    clean = clean_images(scene, label, class_images, generator(*purpose, "clean"))
    pixels = torch.cat([scene.target.pixels[None], clean]).to(scene.device, torch.float32)
    with torch.no_grad():
        embeddings = embed(scene, crafting, pixels, purpose)
        mean = embeddings[1:].mean(0)
        return Way(mean, embeddings[0] - mean)
