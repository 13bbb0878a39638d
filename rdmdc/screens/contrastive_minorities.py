"""Groups of images that lie apart from their class, found without being told how many there are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins, rates
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.options import Rate, option
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.minorities import Minority, minorities, whiten
from rdmdc.screens.projecting import Projecting, passes, project
from rdmdc.screens.screening import Suspects


@dataclass(frozen=True)
class Options(Projecting):
    """How images are projected, and what makes a group of them a suspicious one."""

    directions: int = option("directions of contrast kept of each network", at_least=1)
    components: int = option(
        "principal components of a class's projections in all networks", at_least=1
    )
    groups: int = option("groups sought in a class, one after the other", at_least=1)
    smallest: Rate = option("smallest group, as a share of its class")
    largest: Rate = option("largest group, as a share of its class; below half")
    separation: float = option(
        "share of the variance that tells a group from a tail; of Gaussians it is 0.64",
        above=0,
        at_most=1,
    )
    margin: float = option(
        "images this far from the mean of the rest go with the group",
        above=0,
        unit="standard deviations of the rest",
    )
    fewest: int = option(
        "images of a class in which groups are sought; smaller classes are kept whole", at_least=3
    )


@plugins.screen(Options, passes=passes)
def contrastive_minorities(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Groups apart from their class in directions that other classes don't share; needs no rate.

    Not in the paper. Each image is projected on its class's top directions of contrast in many
    random networks (`contrastive`); principal components over all networks keep what these agree
    on. Poisons pull towards one target and form a small, tight group there: skewed directions of
    the components are sought and split in two (`minorities`). Where the split explains at least
    ``separation`` of the variance, the group is left out; elsewhere nothing is. The score of an
    image is how near it is to a group, 1 at the group's mean and beyond, times the group's ratio of
    explained to unexplained variance: the largest of all groups.
    """
    images = suspects.images
    projections: dict[str, torch.Tensor] = {}  # of a network and class, in the order of both
    done = 0
    if (state := checkpoints.resume()) is not None:
        projections, done = state.group("projections", "cpu"), state.facts["networks"]
    for number in range(done, options.networks):
        projected = project(suspects, options, number, options.directions)
        projections |= {f"{number}.{c}": along for c, along in enumerate(projected)}
        progress(number + 1, options.networks, 0.0)
        checkpoints.offer(State({"projections": projections}, {"networks": number + 1}))

    scores = torch.zeros(len(images.labels), dtype=torch.float64)
    kept = torch.ones(len(images.labels), dtype=torch.bool)
    for c in range(len(images.class_names)):
        own = [projections[f"{number}.{c}"] for number in range(options.networks)]
        indices = images.indices(c)
        if len(indices) < options.fewest:
            continue
        for group in groups_apart(torch.cat(own, 1), options):
            explained = group.separation / max(1e-9, 1 - group.separation)
            towards = explained * group.position.clamp(max=1) * group.among
            scores[indices] = torch.maximum(scores[indices], towards)
            if group.separation >= options.separation:
                kept[indices[group.beyond(options.margin)]] = False
        if not kept[indices].any():
            kept[indices] = True
    return Screening(scores, kept)


def groups_apart(projections: torch.Tensor, options: Options) -> list[Minority]:
    """The minorities of one class among its images' projections (n, networks · directions)."""
    projections = projections.double()
    mean, matrix = whiten(projections, options.components)
    smallest = max(2, rates.count(options.smallest, len(projections)))
    largest = rates.count(options.largest, len(projections))
    return minorities((projections - mean) @ matrix, smallest, largest, options.groups)
