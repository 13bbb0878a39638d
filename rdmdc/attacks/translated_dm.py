"""DM poisoning by an attacker who changes nothing of his poisons but where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Crafting, Purpose, Scene, choose, craft, embed
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import option
from rdmdc.progress import OnStep


@dataclass(frozen=True)
class Options(Crafting):
    """How poisons are crafted, and how much they keep of what tells them apart."""

    keeping: float = option(
        "weight of the poisons' differences from their mean, which are to stay those of the images"
        " that they were; 0: DM poisoning",
        at_least=0,
    )


@plugins.attack(Options, passes=4)
def translated_dm(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning that moves all poisons by one vector, so that they vary as before.

    Not in the paper. Alg. 2 matches the poisons' mean alone, so that each poison also changes in
    ways that its class does not vary in. Here each keeps its own difference from their mean.
    """
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(translated_objective, scene, options, indices)
    return craft(scene, indices, options, objective, progress, checkpoints)


def translated_objective(
    scene: Scene, options: Options, indices: torch.Tensor, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """Eq. 5 + keeping · mean_p ‖(Φ(p) − mean Φ(p)) − (Φ(x_p) − mean Φ(x_p))‖².

    x_p are the clean images at ``indices`` (P,); values (P, C, H, W) are the poisons' pixels.
    """
    target = scene.target.pixels.to(values)[None]
    embeddings = embed(scene, options, torch.cat([target, values]), purpose)
    poisons, mean = embeddings[1:], embeddings[1:].mean(0)
    loss = (embeddings[0] - mean).square().sum()
    if options.keeping > 0:
        with torch.no_grad():
            clean = embed(scene, options, scene.train.pixels[indices].to(values), purpose)
        changed = (poisons - mean) - (clean - clean.mean(0))
        loss = loss + options.keeping * changed.square().sum(1).mean()
    yield loss
