"""Untargeted poisoning: poisons of all classes away from their class's mean (§2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import (
    Crafted,
    Crafting,
    Purpose,
    Scene,
    choose,
    clean_images,
    craft,
    embed,
)
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options(Crafting):
    """How poisons are crafted, and from how many images a class's clean mean is estimated."""

    clean_batch: int = option(
        "clean images of a class whose mean embedding poisons move away from", at_least=1
    )


@plugins.attack(Options, every_class=True, passes=2)
def untargeted(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """Images of all classes moved away from their class's mean embedding (§2.3).

    The paper names no objective: this is Eq. 5's distance, from the clean mean, maximised.
    """
    indices = choose(scene, range(len(scene.train.class_names)))
    labels = scene.train.labels[indices]
    objective = partial(untargeted_objective, scene, options, labels)
    return craft(scene, indices, options, objective, progress, checkpoints)


def untargeted_objective(
    scene: Scene, crafting: Options, labels: torch.Tensor, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """A term a class: −‖mean of its clean images' embeddings − mean of its poisons'‖²."""
    for c in labels.unique().tolist():
        draws = generator(*purpose, "clean", c)
        clean = clean_images(scene, c, crafting.clean_batch, draws).to(values)
        mine = values[labels.to(values.device) == c]
        embeddings = embed(scene, crafting, torch.cat([clean, mine]), (*purpose, c))
        mean, poisoned = embeddings[: len(clean)].mean(0), embeddings[len(clean) :].mean(0)
        yield -(mean - poisoned).square().sum()
