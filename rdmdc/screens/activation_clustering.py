"""The smaller of two clusters of a class's trained features."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins, rates
from rdmdc.checkpoints import Checkpoints
from rdmdc.models.training import Schedule
from rdmdc.options import Rate, option
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.minorities import whiten
from rdmdc.screens.screening import Suspects
from rdmdc.screens.trained_features import trained_features

STEPS = 100  # of Lloyd's algorithm, which stops when no point changes its cluster


@dataclass(frozen=True)
class Options:
    """What is clustered, and when the smaller cluster is suspicious."""

    components: int = option("principal components of a class's features", at_least=1)
    largest: Rate = option("largest share of the class that a suspicious cluster has; below half")
    training: Schedule = option("training of the network on the delivered images")


@plugins.screen(Options, passes=lambda options: 3 * options.training.epochs + 1)
def activation_clustering(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Activation clustering (Chen et al. 2018): leave out the smaller of two clusters of a class.

    Features of a trained network are reduced to white principal components and split by 2-means; a
    cluster of at most ``largest`` of the class is left out (their relative-size test; they name
    about a third). The score is the distance to the larger cluster's centre less that to the
    smaller one's. Deviation: they reduce by independent components, which are a rotation of these
    and leave 2-means what it is. It needs no rate.
    """
    features = trained_features(suspects, options.training, progress, checkpoints)
    labels = suspects.images.labels
    scores = torch.zeros(len(labels), dtype=torch.float64)
    kept = torch.ones(len(labels), dtype=torch.bool)
    for c in range(len(suspects.images.class_names)):
        indices = suspects.images.indices(c)
        own = features[indices].double()
        mean, matrix = whiten(own, options.components)
        points = (own - mean) @ matrix
        smaller = two_means(points)
        if not smaller.any():
            continue
        centres = points[~smaller].mean(0), points[smaller].mean(0)
        scores[indices] = (points - centres[0]).norm(dim=1) - (points - centres[1]).norm(dim=1)
        if int(smaller.sum()) <= rates.count(options.largest, len(indices)):
            kept[indices] = ~smaller
    return Screening(scores, kept)


def two_means(points: torch.Tensor) -> torch.Tensor:
    """Which points (n, Q) are in the smaller of two clusters (n,) bool; none where all are equal.

    Lloyd's algorithm from the two ends of each axis; the split of least distances within is taken.
    """
    best, least = torch.zeros(len(points), dtype=torch.bool), float("inf")
    for axis in range(points.shape[1]):
        second = points[:, axis] > points[:, axis].mean()
        for _ in range(STEPS):
            if not second.any() or second.all():
                break
            centres = torch.stack([points[~second].mean(0), points[second].mean(0)])
            distances = torch.cdist(points, centres)
            nearer = distances[:, 1] < distances[:, 0]
            if torch.equal(nearer, second):
                break
            second = nearer
        if not second.any() or second.all():
            continue
        parts = points[~second], points[second]
        within = sum(float((part - part.mean(0)).square().sum()) for part in parts)
        if within < least:
            best, least = second, within
    return best if 2 * int(best.sum()) <= len(best) else ~best
