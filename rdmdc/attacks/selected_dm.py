"""DM poisoning by an attacker who chooses the images that he turns into poisons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Scene, choose, craft, embed
from rdmdc.attacks.dm_poison import dm_objective
from rdmdc.attacks.way import OnTheWay, way_to_target
from rdmdc.checkpoints import Checkpoints
from rdmdc.options import option
from rdmdc.progress import OnStep


@dataclass(frozen=True)
class Options(OnTheWay):
    """How poisons are crafted, and which images become poisons."""

    selected: str = option(
        "images that lie nearest to the target on the way from their class, or farthest from it",
        choices=("nearest", "farthest"),
    )
    networks: int = option("random networks that the images' places are averaged over", at_least=1)


@plugins.attack(Options, passes=2)
def selected_dm(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning (Alg. 2) of the images nearest to the target, or farthest from it.

    Not in the paper, which poisons images drawn at random. The nearest have the least way to go
    and take the place of the class's natural tail towards the target. To take away the farthest
    moves the class's mean by itself.
    """
    indices = places_chosen(scene, options)
    objective = partial(dm_objective, scene, options)
    return craft(scene, indices, options, objective, progress, checkpoints)


def places_chosen(scene: Scene, options: Options) -> torch.Tensor:
    """Indices (P,) ascending: the class's share of images that lie nearest or farthest."""
    label = scene.target.adversarial_label
    start, count = int(scene.train.class_start()[label]), int(scene.train.counts()[label])
    pixels = scene.train.pixels[start : start + count].to(scene.device, torch.float32)
    places = torch.zeros(count)
    for number in range(options.networks):
        purpose = (*scene.purpose, "places", number)
        way = way_to_target(scene, options, options.class_images, purpose)
        with torch.no_grad():
            places += way.places(embed(scene, options, pixels, purpose)).cpu()
    order = places.argsort(descending=options.selected == "nearest", stable=True)
    return (order[: len(choose(scene, [label]))] + start).sort().values
