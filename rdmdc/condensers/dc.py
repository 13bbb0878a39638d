"""DC: condensation by gradient matching."""

from __future__ import annotations

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.matching_gradients import Options, match_gradients, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.progress import OnStep


@plugins.condenser(Options, matches="gradients", passes=passes)
def dc(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Dataset condensation (DC; Zhao et al. 2021): match each class's gradient in trained networks.

    The distance is 1 − cosine for each output channel, summed over layers; biases and norms do not
    count. No augmentation, whatever the preset's is. The published loops are 1 × 1, 10 × 50 and
    50 × 10 (outer × inner) at M = 1, 10 and 50. With an estimator other than the mean it is RDM-DC
    for gradients, which §4.3 proposes and the paper does not run: the estimator sees the images'
    gradients of the last layer. Deviation: the set returned is the one after the last update, and
    there is no BatchNorm whose statistics would have to be frozen.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    return match_gradients(task, options, (), progress, checkpoints)
