"""Herding: real images whose mean is that of their class."""

from __future__ import annotations

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.choosing import Options, choose, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.progress import OnStep


@plugins.condenser(Options, matches=None, passes=passes)
def herding(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Real images of each class whose mean embedding is greedily brought to the class's mean.

    Welling 2009, in the form of iCaRL (Rebuffi et al. 2017): the next image is the one that brings
    the mean of those chosen nearest to the mean of the class. Deviations: the embeddings are of
    random networks, as DM's are, while iCaRL and the baseline of the condensation papers train
    them; and embeddings are not scaled to length one. The class mean is of the ``pool``.
    Raises RecordError where a class has fewer than ``ipc`` images.
    """
    return choose(task, options, nearest_mean, progress, checkpoints)


def nearest_mean(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` distinct rows of vectors (N, D), each the best to add to the mean of those before.

    Of equal rows the first is taken.
    """
    mean, total = vectors.mean(0), torch.zeros_like(vectors[0])
    free = torch.ones(len(vectors), dtype=torch.bool)
    chosen = []
    for number in range(1, count + 1):
        distance = (mean - (total + vectors) / number).norm(dim=1)
        best = int(distance.masked_fill(~free, float("inf")).argmin())
        free[best] = False
        total = total + vectors[best]
        chosen.append(best)
    return torch.tensor(chosen)
