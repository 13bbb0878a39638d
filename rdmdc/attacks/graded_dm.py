"""DM poisoning by an attacker who knows that groups of images apart from their class are sought."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Purpose, Scene, choose, craft, embed
from rdmdc.attacks.way import OnTheWay, way_to_target
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import option
from rdmdc.progress import OnStep


@dataclass(frozen=True)
class Options(OnTheWay):
    """How poisons are crafted, and how they are spread between their class and the target."""

    nearest: float = option(
        "where the poison nearest to its class lies on the way to the target: 0 at the class's"
        " mean, 1 at the target",
        at_least=0,
    )
    farthest: float = option(
        "where the farthest poison lies; above 1 it lies beyond the target", at_least=0
    )
    grading: float = option(
        "weight of each poison's place on the way, beside that of their mean", at_least=0
    )


@plugins.attack(Options, passes=5)
def graded_dm(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning with poisons at all distances between their class and the target.

    Not in the paper. Poisons of Alg. 2 lie together near the target and can be told from their
    class as a group. Here the i-th of P is to lie at a_i on the way from the clean class's mean to
    the target, a_i evenly spaced from ``nearest`` to ``farthest``, so that the class has a tail and
    no group. Where both are above 1, fewer poisons beyond the target move the mean as far.
    """
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(graded_objective, scene, options)
    return craft(scene, indices, options, objective, progress, checkpoints)


def graded_objective(
    scene: Scene, options: Options, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """‖mean_p Φ(p) − (r̄ + ā d)‖² + grading · ‖d‖² · mean_i (⟨Φ(p_i) − r̄, d⟩ / ‖d‖² − a_i)².

    d = Φ(x_t) − r̄, with r̄ the mean of clean images of the class; values (P, C, H, W) are pixels.
    With nearest and farthest 1 and grading 0 it is Eq. 5.
    """
    way = way_to_target(scene, options, options.class_images, purpose)
    embeddings = embed(scene, options, values, purpose)
    places = torch.linspace(options.nearest, options.farthest, len(values), device=values.device)
    apart = (embeddings.mean(0) - way.mean - places.mean() * way.step).square().sum()
    yield apart + options.grading * way.length * (way.places(embeddings) - places).square().mean()
