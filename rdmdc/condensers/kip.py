"""KIP: a set from which kernel ridge regression predicts real images."""

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
from rdmdc.models import running
from rdmdc.models.network import Weights
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options:
    """How the set, KIP's support, is learned."""

    ipc: int = option("M, synthetic images per class", at_least=1)
    batch: int = option("real images per class and iteration, KIP's target", at_least=1)
    networks: int = option("random networks whose features make an iteration's kernel", at_least=1)
    iterations: int = option("updates of the set", at_least=1)
    ridge: float = option("λ, times the kernel's mean diagonal (published: 1e-6)", above=0)
    learning_rate: float = option("Adam's (published: 0.01 and below)", above=0)
    initialisation: str = option(
        "noise: N(0, I) in normalised space; real: images of the data set (published)",
        choices=("noise", "real"),
    )
    log_every: int = option("iterations between rows of the trace", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: real images once, the set with its gradient, in each network."""
    step = options.networks * (options.batch + 2 * options.ipc)
    return options.iterations * classes * step


@plugins.condenser(Options, matches=None, passes=passes)
def kip(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """Kernel inducing points (KIP; Nguyen et al. 2021) with a kernel of random convolutions.

    The loss is ½ mean ‖y_t − K_ts (K_ss + λ mean(diag K_ss) I)⁻¹ y_s‖² over real images t, with s
    the set and y one-hot labels minus 1 / classes; the set descends by Adam. The trace has the loss
    and the share of real images that the regression reads right. A panel's methods all get the same
    set, as no mean is matched.

    Deviations: the kernel is the inner product of embeddings of ``networks`` random networks, fresh
    in each iteration, which a CPU can afford (as in RFAD, Loo et al. 2022); the published figures
    are of the exact kernel of an infinitely wide network. Labels stay fixed, as a condensed set has
    classes. No augmentation.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    data, device = task.data, task.device
    data.require(options.batch, "the condenser's batch")
    purpose: Purpose = (task.seed, "condense", task.run)
    start = START[options.initialisation](data, options.ipc, (*purpose, "start")).to(device)

    def gradient(learned: Tensors, purpose: Purpose) -> tuple[float, Tensors, Row]:
        loss, right, by_inputs = _gradient(task, options, learned["inputs"], purpose)
        return loss, {"inputs": by_inputs}, {"right": right}

    def reached(learned: Tensors) -> Row:
        return {}

    return descend(task, options, {"inputs": start}, gradient, reached, progress, checkpoints)


def _gradient(
    task: Task, options: Options, synthetic: torch.Tensor, purpose: Purpose
) -> tuple[float, float, torch.Tensor]:
    """The loss, the share of real images read right, and the gradient by the set's inputs."""
    data, classes = task.data, range(len(task.data.class_names))
    drawn = [data.draw(c, options.batch, generator(*purpose, "batch", c))[0] for c in classes]
    real = data.normalisation.normalise(torch.cat(drawn).to(task.device))
    networks = [
        running.to(task.network.draw(generator(*purpose, "network", i)), task.device)
        for i in range(options.networks)
    ]
    synthetic = synthetic.detach().requires_grad_()
    chunk = running.even_chunk(len(synthetic), 1, synthetic.device.type)
    support = _features(task, networks, synthetic, chunk)
    with torch.no_grad():
        target = _features(task, networks, real, running.CHUNK[real.device.type])
    predicted = regression(support, target, _labels(len(classes), support), options.ridge)
    wanted = _labels(len(classes), target)
    loss = (predicted - wanted).square().sum(1).mean() / 2
    right = (predicted.argmax(1) == wanted.argmax(1)).double().mean()
    (gradient,) = torch.autograd.grad(loss, synthetic)
    return float(loss.detach()), float(right), gradient


def _features(
    task: Task, networks: list[Weights], inputs: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Embeddings (N, networks · D) in double precision, whose inner product is the kernel."""
    joined = [running.embed(task.network, weights, inputs, chunk) for weights in networks]
    features = torch.cat(joined, 1).double()
    return features / features.shape[1] ** 0.5


def _labels(classes: int, features: torch.Tensor) -> torch.Tensor:
    """One-hot labels (N, classes) minus 1 / classes of features (N, …) sorted by class."""
    each = len(features) // classes
    labels = torch.eye(classes, dtype=features.dtype, device=features.device) - 1 / classes
    return labels.repeat_interleave(each, 0)


def regression(
    support: torch.Tensor, target: torch.Tensor, labels: torch.Tensor, ridge: float
) -> torch.Tensor:
    """Kernel ridge regression: predictions (T, classes) from features (S, F) and (T, F)."""
    kernel = support @ support.T
    ridged = kernel + ridge * kernel.diagonal().mean() * torch.eye(len(kernel)).to(kernel)
    return target @ support.T @ torch.linalg.solve(ridged, labels)
