"""No screen: every image is kept."""

from __future__ import annotations

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.progress import OnStep
from rdmdc.records import Screening
from rdmdc.screens.screening import Suspects


@plugins.screen()
def none(
    suspects: Suspects, options: None, progress: OnStep, checkpoints: Checkpoints
) -> Screening:
    """Keep every image; the condenser sees the training set as it is."""
    count = len(suspects.images.labels)
    return Screening(torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.bool))
