"""Spectral signatures on the features of a trained network (Tran et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.models.training import Schedule
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.screening import Drop, Suspects, keep_without_top
from rdmdc.screens.trained_features import trained_features


@dataclass(frozen=True)
class Options(Drop):
    """How many images are left out, and how the network is trained whose features are used."""

    training: Schedule = option("training of the network on the delivered images")


@plugins.screen(Options, passes=lambda options: 3 * options.training.epochs + 1)
def spectral_signatures(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Squared projection on the top singular vector of a class's trained features.

    Tran, Li and Madry 2018, Algorithm 1: train on the delivered set; in each class centre the
    features (n, D), take the top right singular vector v and score ⟨r − r̄, v⟩². Tran et al. leave
    out 1.5ε of the class. Deviation: the network is the workflow's own ConvNet or other family, and
    it is not trained again on what is left, since the condenser comes next.
    """
    images = suspects.images
    features = trained_features(
        suspects, options.training, progress, checkpoints, "spectral_signatures"
    )
    scores = torch.zeros(len(images.labels), dtype=torch.float64)
    for c in range(len(images.class_names)):
        indices = images.indices(c)
        scores[indices] = signatures(features[indices])
    classes = len(images.class_names)
    return Screening(scores, keep_without_top(scores, images.labels, classes, options.drop))


def signatures(features: torch.Tensor) -> torch.Tensor:
    """Scores (n,) float64 of one class's features (n, D): ⟨r − r̄, v⟩², v the top direction.

    By the smaller of the two Gram matrices, so that neither many images nor many features matter.
    """
    centred = features.double() - features.double().mean(0)
    n, d = centred.shape
    if n <= d:  # XXᵀ u = λ u gives Xv = √λ u, so that ⟨x, v⟩² = λ u²
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        return values[-1].clamp(min=0) * vectors[:, -1].square()
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return (centred @ vectors[:, -1]).square()
