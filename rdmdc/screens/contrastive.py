"""Images far out along the direction in which their class varies most compared with the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.projecting import Projecting, passes, project
from rdmdc.screens.screening import Drop, Suspects, keep_without_top


@dataclass(frozen=True)
class Options(Projecting, Drop):
    """How images are projected, and how many are left out."""


@plugins.screen(Options, passes=passes)
def contrastive(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Distance along the direction of contrast with the other classes, over many random networks.

    Not in the paper: `spectral_mean` looks in the direction in which a class varies most, which in
    a diverse class is one that all classes share; this takes the top generalised eigenvector w of
    the class's covariance and the others' (`rdmdc.contrast`). In each network the score of an image
    is |⟨r − r̄, w⟩| divided by its median over the class; scores are summed over networks.
    """
    labels = suspects.images.labels
    scores = torch.zeros(len(labels), dtype=torch.float64)
    done = 0
    if (state := checkpoints.resume()) is not None:
        scores, done = state.group("screen", "cpu")["scores"], state.facts["networks"]
    for number in range(done, options.networks):
        for c, along in enumerate(project(suspects, options, number, 1)):
            indices = suspects.images.indices(c)
            scores[indices] += relative_to_median(along[:, 0].abs().double())
        progress(number + 1, options.networks, float(scores.mean()) / (number + 1))
        checkpoints.offer(State({"screen": {"scores": scores}}, {"networks": number + 1}))
    classes = len(suspects.images.class_names)
    return Screening(scores, keep_without_top(scores, labels, classes, options.drop))


def relative_to_median(distances: torch.Tensor) -> torch.Tensor:
    """Non-negative distances (n,) over their median; over their mean where more than half are zero.

    A class of equal images has zeros only.
    """
    unit = float(distances.median()) or float(distances.mean()) or 1.0
    return distances / unit
