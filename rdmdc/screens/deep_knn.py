"""Images whose nearest neighbours belong to other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.models.training import Schedule
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.records import RecordError, Screening
from rdmdc.screens.screening import Suspects
from rdmdc.screens.trained_features import trained_features

BLOCK = 512  # images compared with all others at once


@dataclass(frozen=True)
class Options:
    """How many neighbours vote, and how the network is trained whose features are used."""

    neighbours: int = option("nearest images that vote on an image's label", at_least=1)
    training: Schedule = option("training of the network on the delivered images")


@plugins.screen(Options, passes=lambda options: 3 * options.training.epochs + 1)
def deep_knn(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Deep k-NN (Peri et al. 2020): leave out images whose neighbours' label is not their own.

    The ``neighbours`` nearest of all training images in the features of a trained network vote; an
    image is left out if another label has more votes than its own (a tie keeps it). The score is
    the share of votes for other labels. Deviation: neighbours are those in Euclidean distance of
    features at unit length. It needs no rate. Raises RecordError where a class would be left
    without images.
    """
    features = trained_features(suspects, options.training, progress, checkpoints)
    labels, classes = suspects.images.labels, len(suspects.images.class_names)
    votes = neighbours_votes(features, labels, classes, options.neighbours)
    own = votes.gather(1, labels[:, None]).squeeze(1)
    kept = own == votes.max(1).values
    left = torch.bincount(labels[kept], minlength=classes)
    if int(left.min()) == 0:
        name = suspects.images.class_names[int(left.argmin())]
        raise RecordError(
            f"no image of class {name!r} has most neighbours of its own label; train for more"
            " epochs or lower neighbours"
        )
    return Screening(1 - own.double() / votes.sum(1), kept)


def neighbours_votes(
    features: torch.Tensor, labels: torch.Tensor, classes: int, neighbours: int
) -> torch.Tensor:
    """Votes (N, C) of the nearest other images for each label; features (N, D), labels (N,)."""
    unit = torch.nn.functional.normalize(features, dim=1)
    number = min(neighbours, len(unit) - 1)
    votes = torch.zeros(len(unit), classes, dtype=torch.int64)
    for part in torch.arange(len(unit)).split(BLOCK):
        similarity = unit[part] @ unit.T
        similarity[torch.arange(len(part)), part] = -2  # not its own neighbour
        nearest = labels[similarity.topk(number, dim=1).indices]
        votes[part] = votes[part].scatter_add(1, nearest, torch.ones_like(nearest))
    return votes
