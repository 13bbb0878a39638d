"""A set that descends by Adam on a loss of its own: what DD and KIP share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.adam import Tensors, adam
from rdmdc.condensers.sets import Condensed, same_for_all
from rdmdc.condensers.task import Purpose, Task
from rdmdc.progress import OnStep

Row = dict[str, float]
Gradient = Callable[[Tensors, Purpose], tuple[float, Tensors, Row]]
"""The loss of what is learned, its gradients by name, and what else the trace is told, for the
draws of a purpose."""


class Options(Protocol):
    """What the loop needs of a condenser's options."""

    @property
    def iterations(self) -> int:
        """Updates of the set."""

    @property
    def learning_rate(self) -> float:
        """Adam's."""

    @property
    def log_every(self) -> int:
        """Iterations between rows of the trace."""


def descend(
    task: Task,
    options: Options,
    learned: Tensors,
    gradient: Gradient,
    reached: Callable[[Tensors], Row],
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Condensed:
    """The set ``inputs`` (C·M, C, H, W) of what is learned, after all updates.

    A row of the trace has the loss before an update and what ``reached`` says after it.
    """
    moments: Tensors = {}
    trace: list[dict[str, Any]] = []
    done = 0
    if (state := checkpoints.resume()) is not None:
        learned, moments = (state.group(name, task.device) for name in ("learned", "moments"))
        done, trace = state.facts["iterations"], state.facts["trace"]
    for number in range(done, options.iterations):
        loss, gradients, told = gradient(learned, (task.seed, "condense", task.run, number))
        learned, moments = adam(learned, gradients, moments, number + 1, options.learning_rate)
        if number % options.log_every == 0 or number == options.iterations - 1:
            trace.append({"iteration": number, "loss": loss, **told, **reached(learned)})
        progress(number + 1, options.iterations, loss)
        facts = {"iterations": number + 1, "trace": trace}
        checkpoints.offer(State({"learned": learned, "moments": moments}, facts))
    return same_for_all(task, learned["inputs"], trace)
