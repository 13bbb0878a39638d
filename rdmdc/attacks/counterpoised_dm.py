"""DM poisoning by an attacker who knows that skewed directions are sought."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins, rates
from rdmdc.attacks.crafting import Crafted, Purpose, Scene, choose, craft, embed
from rdmdc.attacks.way import OnTheWay, way_to_target
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import Rate, option
from rdmdc.progress import OnStep


@dataclass(frozen=True)
class Options(OnTheWay):
    """How poisons are crafted, and how some of them balance the others."""

    counterweight: Rate = option("share of the poisons that lie on the other side of the class")
    beyond: float = option(
        "how far these lie on the other side, in lengths of the way to the target", above=0
    )


@plugins.attack(Options, passes=5)
def counterpoised_dm(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning with a few poisons far on the other side of the class.

    Not in the paper. Poisons of Alg. 2 make their class skewed towards the target. A few poisons
    that lie farther off on the opposite side undo the skewness and little of the mean's shift:
    m of them at distance b cancel the third moment of n at distance 1 if m b³ = n, and then take
    1 / b² of the shift.
    """
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(counterpoised_objective, scene, options)
    return craft(scene, indices, options, objective, progress, checkpoints)


def counterpoised_objective(
    scene: Scene, options: Options, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """Eq. 5 of the first poisons + ‖mean of the others − (r̄ − beyond · d)‖², d = Φ(x_t) − r̄.

    r̄ is the mean of clean images of the class; values (P, C, H, W) are pixels, of which the last
    ⌊counterweight · P⌋ lie on the other side, one fewer than all at most. With 0 it is Eq. 5.
    """
    way = way_to_target(scene, options, options.class_images, purpose)
    embeddings = embed(scene, options, values, purpose)
    opposite = int(rates.parse(options.counterweight) * len(values))
    opposite = min(opposite, len(values) - 1)
    here, there = embeddings[: len(values) - opposite], embeddings[len(values) - opposite :]
    loss = (here.mean(0) - way.mean - way.step).square().sum()
    if opposite:
        loss = loss + (there.mean(0) - way.mean + options.beyond * way.step).square().sum()
    yield loss
