"""Images with unusually near neighbours in their class."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.models import running
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.projecting import BLOCK, embed_under_draw
from rdmdc.screens.screening import Drop, Suspects, keep_without_top


@dataclass(frozen=True)
class Options(Drop):
    """How many images are left out, and which neighbour counts."""

    networks: int = option("random networks, each with an augmentation draw of its own", at_least=1)
    neighbour: float = option(
        "which neighbour's distance counts, as a share of the class", above=0, below=1
    )
    sample: int = option(
        "images of a class, at most, among which neighbours are sought; it bounds the memory",
        at_least=2,
    )


@plugins.screen(Options, passes=lambda options: options.networks)
def density(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Nearness of the k-th neighbour within the class, over many random networks.

    Not in the paper. Poisons that pull towards one target lie near each other. In each network the
    score of an image is the class's median distance to the k-th neighbour over the image's own;
    scores are summed over networks. The opposite of outlier detection by the same distance
    (Ramaswamy et al. 2000), and cleanlab's near-duplicate check is its relative.
    """
    images = suspects.images
    labels = images.labels
    scores = torch.zeros(len(labels), dtype=torch.float64)
    done = 0
    if (state := checkpoints.resume()) is not None:
        scores, done = state.group("screen", "cpu")["scores"], state.facts["networks"]
    for number in range(done, options.networks):
        drawn = suspects.network.draw(suspects.generator("network", number))
        weights = running.to(drawn, suspects.device)
        for c in range(len(images.class_names)):
            indices = images.indices(c)
            generator = suspects.generator("sample", number, c)
            order = torch.randperm(len(indices), generator=generator)
            known = embed_under_draw(suspects, number, weights, indices[order[: options.sample]])
            distances = torch.zeros(len(indices), dtype=torch.float64)
            for start in range(0, len(indices), BLOCK):
                part = order[start : start + BLOCK]
                own = embed_under_draw(suspects, number, weights, indices[part])
                distances[part] = neighbour_distances(own, known, options.neighbour).cpu().double()
            scores[indices] += nearness(distances)
        progress(number + 1, options.networks, float(scores.mean()) / (number + 1))
        checkpoints.offer(State({"screen": {"scores": scores}}, {"networks": number + 1}))
    classes = len(images.class_names)
    return Screening(scores, keep_without_top(scores, labels, classes, options.drop))


def neighbour_distances(own: torch.Tensor, known: torch.Tensor, neighbour: float) -> torch.Tensor:
    """Distances (n,) of vectors (n, D) to their k-th nearest of (m, D), k = ⌈neighbour · m⌉.

    A vector that is among the m counts itself as its nearest, so that its k-th is one nearer.
    """
    k = min(len(known), 1 + ceil(neighbour * (len(known) - 1)))
    return torch.cdist(own, known).kthvalue(k, dim=1).values


def nearness(distances: torch.Tensor) -> torch.Tensor:
    """The median of distances (n,) over each, at most a million; ones where all are zero."""
    median = distances.median()
    if median == 0:
        return torch.where(distances == 0, 1.0, 0.0).double()
    return median / distances.clamp(min=1e-6 * median)
