"""A control: images chosen at random are left out."""

from __future__ import annotations

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.screening import Drop, Suspects, keep_without_top


@plugins.screen(Drop)
def random(
    suspects: Suspects, options: Drop, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Leave out a share of each class at random: what leaving out so many does by itself."""
    labels = suspects.images.labels
    scores = torch.rand(len(labels), dtype=torch.float64, generator=suspects.generator("random"))
    classes = len(suspects.images.class_names)
    return Screening(scores, keep_without_top(scores, labels, classes, options.drop))
