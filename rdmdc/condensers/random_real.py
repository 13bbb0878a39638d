"""Real images drawn at random: what every condenser has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.sets import Condensed, same_for_all
from rdmdc.condensers.starts import real
from rdmdc.condensers.task import Task
from rdmdc.options import option
from rdmdc.progress import OnStep


@dataclass(frozen=True)
class Options:
    """How many images are drawn."""

    ipc: int = option("M, images drawn of each class", at_least=1)


@plugins.condenser(Options, matches=None)
def random_real(
    task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Condensed:
    """Real images of each class, drawn at random, the same for every method of the panel.

    They are the images from which the other condensers begin with a real start. Raises RecordError
    where a class has fewer than ``ipc`` images.
    """
    inputs = real(task.data, options.ipc, (task.seed, "condense", task.run, "start"))
    progress(1, 1, float("nan"))
    return same_for_all(task, inputs)
