"""Distribution matching (Eq. 2) with a chosen estimate of the real mean (Alg. 3)."""

from __future__ import annotations

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.matching_means import Options, match_means, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.models import running
from rdmdc.progress import OnStep


@plugins.condenser(Options, matches="embeddings", class_by_class=True, passes=passes)
def dm(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Distribution matching (Zhao and Bilen 2021a): match class means of random embeddings.

    Alg. 3 for each method of the panel. Deviation from the public DM implementation: the set
    returned is the one after the last update, and that one is evaluated. Raises RecordError where
    a class has fewer images than ``batch``.
    """
    return match_means(task, options, running.embed, progress, checkpoints)
