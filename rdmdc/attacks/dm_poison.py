"""DM poisoning: poisons whose mean embedding is the target's (Alg. 2, Eq. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Crafting, Purpose, Scene, choose, craft, embed
from rdmdc.checkpoints import Checkpoints
from rdmdc.progress import OnStep


@plugins.attack(Crafting, passes=2)
def dm_poison(
    scene: Scene, options: Crafting, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning, Alg. 2: no victims, a fresh random network and augmentation each step."""
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(dm_objective, scene, options)
    return craft(scene, indices, options, objective, progress, checkpoints)


def dm_objective(
    scene: Scene, crafting: Crafting, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """Eq. 5: ‖Φ_θ(A_w(x_t)) − mean_p Φ_θ(A_w(x_p + δ_p))‖² for one θ and one w."""
    target = scene.target.pixels.to(values)[None]
    embeddings = embed(scene, crafting, torch.cat([target, values]), purpose)
    yield (embeddings[0] - embeddings[1:].mean(0)).square().sum()
