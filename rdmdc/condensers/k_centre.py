"""k-centre: real images from which no image of their class is far."""

from __future__ import annotations

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.choosing import Options, choose, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.progress import OnStep


@plugins.condenser(Options, matches=None, passes=passes)
def k_centre(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Real images of each class that cover it, by greedy farthest-first choice.

    Sener and Savarese 2018 (their greedy 2-approximation, without the integer programme), class by
    class. Deviations: the embeddings are of random networks, theirs of a trained one; the first
    centre is the image nearest to the class's mean, theirs are labelled at random.
    Raises RecordError where a class has fewer than ``ipc`` images.
    """
    return choose(task, options, farthest_first, progress, checkpoints)


def farthest_first(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` distinct rows of vectors (N, D): the row nearest to the mean, then always the one
    farthest from those before. Of equal rows the first is taken."""
    chosen = [int((vectors - vectors.mean(0)).norm(dim=1).argmin())]
    nearest = torch.full((len(vectors),), float("inf"), dtype=vectors.dtype)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (vectors - vectors[chosen[-1]]).norm(dim=1))
        nearest[chosen] = -1  # even where all the others are copies of a centre
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)
