"""MTT: a set on which networks train as they train on the real images."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.sets import Condensed, same_for_all
from rdmdc.condensers.starts import START
from rdmdc.condensers.stepping import step
from rdmdc.condensers.task import Purpose, Task
from rdmdc.condensers.unrolling import shuffled, unroll
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.models.network import Weights
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options:
    """How trajectories are matched; published numbers are the public code's defaults."""

    ipc: int = option("M, synthetic images per class", at_least=1)
    experts: int = option("networks trained on the real images (published: 100)", at_least=1)
    interval: int = option(
        "steps of an expert from one saved state to the next (published: an epoch, 196)", at_least=1
    )
    expert_batch: int = option("real images in a step of an expert (published: 256)", at_least=1)
    expert_rate: float = option("SGD's for experts, and the first of students (0.01)", above=0)
    latest_start: int = option(
        "the last saved state from which a student starts (published: 24)", at_least=0
    )
    span: int = option("saved states from a student's start to its target (3)", at_least=1)
    student_steps: int = option("steps of a student (published: 20)", at_least=1)
    student_batch: int = option("synthetic images in a student's step (all)", at_least=1)
    iterations: int = option("updates of the set (published: 5000)", at_least=1)
    learning_rate: float = option("SGD's for the set (published: 1000)", above=0)
    momentum: float = option("SGD's for set and rate (published: 0.5)", at_least=0, below=1)
    rate_rate: float = option("SGD's for the student's rate (published: 1e-5)", at_least=0)
    initialisation: str = option(
        "noise: N(0, I) in normalised space; real: images of the data set (published)",
        choices=("noise", "real"),
    )
    log_every: int = option("iterations between rows of the trace", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: experts' steps, and students' with the gradient of each step's gradient."""
    states = options.experts * (options.latest_start + options.span)
    images = min(options.student_batch, classes * options.ipc)
    student = 9 * options.iterations * options.student_steps * images
    return 3 * states * options.interval * options.expert_batch + student


@plugins.condenser(Options, matches=None, passes=passes)
def mtt(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Matching training trajectories (MTT; Cazenavette et al. 2022).

    Experts train on the real images, with the preset's augmentation. In each iteration a student
    starts from an expert's saved weights θ_t, takes ``student_steps`` on the set, and the loss is
    ‖its weights − θ_{t+span}‖² / ‖θ_t − θ_{t+span}‖², by which the set and the student's rate
    descend. The trace has the loss and the rate. Screens act before the experts, and a panel's
    methods all get the same set, as no mean is matched.

    Deviations: experts are trained within this job and only for the states that students use; the
    published 100 experts at width 128 would be gigabytes in a checkpoint, so take a few. Augmented
    batches share one operation, as DSA's do here. No ZCA whitening. The learned rate is reported
    and not used by the evaluation, whose rate is the preset's.
    Raises RecordError where the set is no number any more.
    """
    purpose: Purpose = (task.seed, "condense", task.run)
    classes, device = len(task.data.class_names), task.device
    start = START[options.initialisation](task.data, options.ipc, (*purpose, "start")).to(device)
    labels = torch.arange(classes, device=device).repeat_interleave(options.ipc)
    learned = {"inputs": start, "rate": torch.tensor(options.expert_rate, device=device)}
    momenta = {name: torch.zeros_like(value) for name, value in learned.items()}
    experts: dict[str, Weights] = {}
    trace: list[dict[str, Any]] = []
    done = 0
    if (state := checkpoints.resume()) is not None:
        groups = [name for name in state.tensors if name.startswith("expert ")]
        experts = {name: running.to(state.group(name, device), device) for name in groups}
        learned, momenta = state.group("learned", device), state.group("momenta", device)
        done, trace = state.facts["iterations"], state.facts["trace"]

    saved = options.latest_start + options.span
    total = options.experts * saved + options.iterations
    for number in range(len(experts), options.experts * (saved + 1)):
        expert, at = divmod(number, saved + 1)
        if at == 0:
            weights = task.network.draw(generator(*purpose, "expert", expert, "network"))
            experts[_name(expert, at)] = running.to(weights, device)
            continue
        trained = _train(task, options, experts[_name(expert, at - 1)], (expert, at), purpose)
        experts[_name(expert, at)] = trained
        progress(expert * saved + at, total, float("nan"))
        tensors = {**experts, "learned": learned, "momenta": momenta}
        checkpoints.offer(State(tensors, {"iterations": 0, "trace": trace}))

    for number in range(done, options.iterations):
        own = (*purpose, number)
        choice = generator(*own, "start")
        expert = int(torch.randint(options.experts, (1,), generator=choice))
        at = int(torch.randint(options.latest_start + 1, (1,), generator=choice))
        loss, gradients = trajectory_gradient(
            task,
            options,
            learned,
            labels,
            (experts[_name(expert, at)], experts[_name(expert, at + options.span)]),
            own,
        )
        for name, own_rate in (("inputs", options.learning_rate), ("rate", options.rate_rate)):
            momenta[name] = options.momentum * momenta[name] + gradients[name]
            learned[name] = learned[name] - own_rate * momenta[name]
        if number % options.log_every == 0 or number == options.iterations - 1:
            row = {"iteration": number, "loss": loss, "rate": float(learned["rate"])}
            trace.append(row)
        progress(options.experts * saved + number + 1, total, loss)
        tensors = {**experts, "learned": learned, "momenta": momenta}
        checkpoints.offer(State(tensors, {"iterations": number + 1, "trace": trace}))
    return same_for_all(task, learned["inputs"], trace)


def _name(expert: int, at: int) -> str:
    """The group of an expert's weights at its at-th saved state; 0 is its start."""
    return f"expert {expert} at {at}"


def _train(
    task: Task, options: Options, weights: Weights, place: tuple[int, int], purpose: Purpose
) -> Weights:
    """An expert's weights after another ``interval`` of plain SGD on the real images."""
    data, network = task.data, task.network
    expert, at = place
    draws = generator(*purpose, "expert", expert, at)
    indices = torch.cat([data.indices(label) for label in range(len(data.class_names))])
    size = min(options.expert_batch, len(indices))
    chunk = running.even_chunk(size, 1, task.device)
    for chosen in islice(shuffled(len(indices), size, draws), options.interval):
        drawn = draw(task.augmentation, len(chosen), draws, shared=True)
        pixels = data.pixels(indices[chosen]).to(task.device)
        inputs = augment(data.normalisation.normalise(pixels).unsqueeze(1), drawn).squeeze(1)
        labels = data.labels[indices[chosen]].to(task.device)
        weights = step(network, weights, inputs, labels, options.expert_rate, chunk)
    return weights


def trajectory_gradient(
    task: Task,
    options: Options,
    learned: Weights,
    labels: torch.Tensor,
    expert: tuple[Weights, Weights],
    purpose: Purpose,
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of one student, and its gradient by ``inputs`` (C·M, C, H, W) and by ``rate``.

    ``expert``: the weights from which the student starts and those that it is to reach.
    """
    begin, target = expert
    leaves = {name: value.detach().requires_grad_() for name, value in learned.items()}
    draws = generator(*purpose, "student")
    batches = shuffled(len(labels), options.student_batch, draws)
    reached = unroll(
        task.network,
        {name: value.detach().requires_grad_() for name, value in begin.items()},
        leaves["inputs"],
        labels,
        leaves["rate"],
        list(islice(batches, options.student_steps)),
        task.augmentation,
        draws,
    )
    far = torch.stack([(begin[name] - target[name]).square().sum() for name in target]).sum()
    left = torch.stack([(reached[name] - target[name]).square().sum() for name in target]).sum()
    loss = left / far
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return float(loss.detach()), dict(zip(leaves, gradients, strict=True))
