"""DSA: gradient matching with differentiable Siamese augmentation."""

from __future__ import annotations

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.matching_gradients import Options, match_gradients, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.progress import OnStep


@plugins.condenser(Options, matches="gradients", passes=passes)
def dsa(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """DC with Siamese augmentation (DSA; Zhao and Bilen 2021b), its operations the preset's.

    A class's real and synthetic images share one draw of one operation; in the inner loop a batch
    shares an operation and each image has its own numbers. All else is as `dc`, estimators too.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    return match_gradients(task, options, task.augmentation, progress, checkpoints)
