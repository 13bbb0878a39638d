"""The mean without the vectors far out along a direction in which only this class varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.contrast import top_contrast
from rdmdc.estimators.estimate import Drop, Estimate, Others, mean_without_top
from rdmdc.options import option


@dataclass(frozen=True)
class Options(Drop):
    """What is dropped, and how the direction of contrast is found."""

    others: int = option(
        "rows of all classes' minibatches that the other classes' covariance is made from",
        at_least=2,
    )
    ridge: float = option(
        "λ as a share of the other classes' mean variance over their rank", above=0
    )
    power_iterations: int = option("steps of the block power iteration", at_least=1)


@plugins.estimator(Options, across_classes=True)
def contrastive_mean(
    vectors: torch.Tensor,
    generators: Sequence[torch.Generator],
    options: Options,
    others: Others,
    classes: Sequence[int],
) -> Estimate:
    """Drop the k = ⌈drop · N⌉ largest along the direction of contrast with the other classes.

    Not in the paper: Alg. 4 with another direction. A sample's score is |⟨r − r̄, w⟩| with w the top
    generalised eigenvector of (S_c, S_o + λI), S_c the covariance of the class's vectors (N, D) and
    S_o that of the sampled ``others`` of any other class (`rdmdc.contrast`). vectors (B, N, D) are
    of the given ``classes``. Raises ContrastError where the others do not vary.
    """
    centred = vectors - vectors.mean(1, keepdim=True)
    scores = torch.stack(
        [
            (own @ direction_of_contrast(own, others, label, options, generator)).abs()
            for own, label, generator in zip(centred, classes, generators, strict=True)
        ]
    )
    return mean_without_top(vectors, scores, options.drop)


def direction_of_contrast(
    centred: torch.Tensor,
    others: Others,
    label: int,
    options: Options,
    generator: torch.Generator,
) -> torch.Tensor:
    """The top direction (D,) of one class's centred vectors (N, D) against rows of the others."""
    rows = others.rows[others.labels != label]
    found = top_contrast(centred, rows, options.ridge, options.power_iterations, generator)
    return found.directions[:, 0]
