"""DD: a set on which a few steps of training do well on real images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers.adam import Tensors
from rdmdc.condensers.descending import Row, descend
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.starts import START
from rdmdc.condensers.task import Purpose, Task
from rdmdc.condensers.unrolling import unroll
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options:
    """How the set is distilled."""

    ipc: int = option("M, synthetic images per class", at_least=1)
    batch: int = option("real images per class and iteration (published: 1024 in all)", at_least=1)
    iterations: int = option("updates of the set (published: 400 epochs)", at_least=1)
    steps: int = option("steps on the set that are unrolled (published: 30)", at_least=1)
    start_rate: float = option("the steps' rate before it is learned (published: 0.02)", above=0)
    learning_rate: float = option("Adam's, for set and rate (published: 0.01)", above=0)
    initialisation: str = option(
        "noise: N(0, I) in normalised space (published); real: images of the data set",
        choices=("noise", "real"),
    )
    log_every: int = option("iterations between rows of the trace", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: unrolled steps on the set with their gradient's gradient, and real images."""
    step = 9 * options.steps * options.ipc + 3 * options.batch
    return options.iterations * classes * step


@plugins.condenser(Options, matches=None, passes=passes)
def dd(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Dataset distillation (DD; Wang et al. 2018): learn the set through training on it.

    In each iteration a fresh random network takes ``steps`` gradient steps on the whole set at a
    learned rate; the loss is its cross-entropy on real images, and set and rate descend by Adam
    through the unrolled steps. The rate is a softplus, so that it stays positive. The trace has the
    loss and the rate. A panel's methods all get the same set, as no mean is matched.

    Deviations: one set for all steps and one rate, where Wang et al. learn images and a rate for
    each step; Adam's rate does not decay; real images and set are augmented by the preset's
    operations, theirs are not; the evaluation trains longer and at the preset's rate.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    data, device = task.data, task.device
    data.require(options.batch, "the condenser's batch")
    purpose: Purpose = (task.seed, "condense", task.run)
    classes = len(data.class_names)
    start = START[options.initialisation](data, options.ipc, (*purpose, "start")).to(device)
    labels = torch.arange(classes, device=device).repeat_interleave(options.ipc)
    rate = torch.tensor(options.start_rate, dtype=torch.float64).expm1().log().float()
    learned = {"inputs": start, "rate": rate.to(device)}

    def gradient(learned: Tensors, purpose: Purpose) -> tuple[float, Tensors, Row]:
        return *unrolled_gradient(task, options, learned, labels, purpose), {}

    def reached(learned: Tensors) -> Row:
        return {"rate": float(torch.nn.functional.softplus(learned["rate"]))}

    return descend(task, options, learned, gradient, reached, progress, checkpoints)


def unrolled_gradient(
    task: Task,
    options: Options,
    learned: dict[str, torch.Tensor],
    labels: torch.Tensor,
    purpose: Purpose,
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss on real images after the unrolled steps, and its gradient by inputs and rate."""
    data, classes = task.data, range(len(task.data.class_names))
    leaves = {name: value.detach().requires_grad_() for name, value in learned.items()}
    weights = task.network.draw(generator(*purpose, "network"))
    reached = unroll(
        task.network,
        {n: w.requires_grad_() for n, w in running.to(weights, task.device).items()},
        leaves["inputs"],
        labels,
        torch.nn.functional.softplus(leaves["rate"]),
        [torch.arange(len(labels))] * options.steps,
        task.augmentation,
        generator(*purpose, "student"),
    )
    drawn = [data.draw(c, options.batch, generator(*purpose, "batch", c))[0] for c in classes]
    real = data.normalisation.normalise(torch.cat(drawn).to(task.device))
    draws = draw(task.augmentation, len(real), generator(*purpose, "augmentation"), shared=True)
    real = augment(real.unsqueeze(1), draws).squeeze(1)
    wanted = torch.arange(len(classes), device=real.device).repeat_interleave(options.batch)
    chunk = running.even_chunk(len(real), 1, real.device.type)
    logits = running.logits(task.network, reached, real, chunk)
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return float(loss.detach()), dict(zip(leaves, gradients, strict=True))
