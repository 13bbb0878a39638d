"""DM poisoning by an attacker who knows that a class is compared with the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Purpose, Scene, choose, clean_images, craft, embed
from rdmdc.attacks.way import OnTheWay, way_to_target
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options(OnTheWay):
    """How poisons are crafted, and how the other classes are made to vary along their way."""

    reach: float = option(
        "how far a decoy lies from its class's mean, in lengths of the way to the target", above=0
    )


@plugins.attack(Options, every_class=True, passes=5)
def decoy_dm(scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Crafted:
    """DM poisoning with decoys in all other classes, which vary along the same way to both sides.

    Not in the paper. A direction in which the other classes vary too is no direction of contrast.
    The decoys of a class lie on both sides of its mean, so that it does not move. The attack takes
    its share of every class, that is, as many poisons more as there are other classes.
    """
    indices = choose(scene, range(len(scene.train.class_names)))
    labels = scene.train.labels[indices]
    objective = partial(decoy_objective, scene, options, labels)
    return craft(scene, indices, options, objective, progress, checkpoints)


def decoy_objective(
    scene: Scene, options: Options, labels: torch.Tensor, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """Eq. 5 for the adversarial class; for each other class a term of its decoys.

    The decoys' term is ‖mean of one half − (r̄_c + reach · d)‖² + ‖mean of the other half − (r̄_c −
    reach · d)‖², d the way from the adversarial class's mean to the target, r̄_c the mean of the
    decoys' class. labels (P,) are those of the poisons, values (P, C, H, W) their pixels.
    """
    way = way_to_target(scene, options, options.class_images, purpose)
    for c in labels.unique().tolist():
        mine = values[labels.to(values.device) == c]
        if c == scene.target.adversarial_label:
            embeddings = embed(scene, options, mine, purpose)
            yield (embeddings.mean(0) - way.mean - way.step).square().sum()
            continue
        draws = generator(*purpose, "clean", c)
        clean = clean_images(scene, c, options.class_images, draws)
        with torch.no_grad():
            mean = embed(scene, options, clean.to(values), purpose).mean(0)
        embeddings = embed(scene, options, mine, purpose)
        term = torch.zeros((), device=values.device)
        for side, half in ((1, embeddings[0::2]), (-1, embeddings[1::2])):
            if len(half):
                there = mean + side * options.reach * way.step
                term = term + (half.mean(0) - there).square().sum()
        yield term
