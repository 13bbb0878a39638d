"""Images far out in all directions that their class has and others lack."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.contrast import FEWEST
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.contrastive import relative_to_median
from rdmdc.screens.projecting import Projecting, passes, project
from rdmdc.screens.screening import Drop, Suspects, keep_without_top


@dataclass(frozen=True)
class Options(Projecting, Drop):
    """How images are projected, and how strongly the most unusual directions count."""

    directions: int = option(
        "directions of contrast kept of each network", at_least=1, at_most=FEWEST
    )
    alpha: float = option(
        "weight of the most unusual directions: 0 counts all alike, many only the first",
        at_least=0,
    )


@plugins.screen(Options, passes=passes)
def quantum_entropy(
    suspects: Suspects, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Quantum-entropy scores after whitening by the other classes, over many random networks.

    SPECTRE (Hayase et al. 2021) whitens by a robust covariance and scores xᵀ exp(α S / ‖S‖) x (Dong
    et al. 2019), S the covariance of the whitened class. Deviations: the covariance of the *other*
    classes whitens, as in `contrastive`; only the top directions of S enter; features are those of
    random networks; scores are divided by their median over the class and summed over networks.
    """
    labels = suspects.images.labels
    scores = torch.zeros(len(labels), dtype=torch.float64)
    done = 0
    if (state := checkpoints.resume()) is not None:
        scores, done = state.group("screen", "cpu")["scores"], state.facts["networks"]
    for number in range(done, options.networks):
        for c, along in enumerate(project(suspects, options, number, options.directions)):
            indices = suspects.images.indices(c)
            scores[indices] += relative_to_median(entropy_scores(along.double(), options.alpha))
        progress(number + 1, options.networks, float(scores.mean()) / (number + 1))
        checkpoints.offer(State({"screen": {"scores": scores}}, {"networks": number + 1}))
    classes = len(suspects.images.class_names)
    return Screening(scores, keep_without_top(scores, labels, classes, options.drop))


def entropy_scores(projections: torch.Tensor, alpha: float) -> torch.Tensor:
    """Scores (n,) of whitened projections (n, K) on the covariance's eigenvectors.

    Σ_k exp(α κ_k / κ_1) z_k² over the largest weight, κ_k the variance along the k-th direction.
    """
    variances = projections.square().mean(0)
    largest = variances.max().clamp(min=torch.finfo(variances.dtype).tiny)
    return projections.square() @ (alpha * (variances / largest - 1)).exp()
