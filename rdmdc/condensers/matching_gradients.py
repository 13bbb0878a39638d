"""Gradient matching with outer and inner loops: what DC and DSA share.

The real side of the loss, with its estimators, is in `class_gradients`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.class_gradients import by_matrices, losses, minibatch, real_gradients
from rdmdc.condensers.sets import Condensed, condensed, traced
from rdmdc.condensers.starts import START
from rdmdc.condensers.stepping import step
from rdmdc.condensers.task import Purpose, Task
from rdmdc.models import running
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.models.network import Network, Weights
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator

SMALLEST = 1e-6  # added to a product of norms, as the public implementation does


@dataclass(frozen=True)
class Options:
    """How gradient matching condenses; the published numbers are for CIFAR-10 at width 128."""

    ipc: int = option("M, synthetic images per class", at_least=1)
    batch: int = option("N, real images per class and outer loop (published: 256)", at_least=2)
    iterations: int = option("K, random initial networks (published: 1000)", at_least=1)
    outer_loops: int = option(
        "updates of the set for each network (published: 1, 10, 50 at M = 1, 10, 50)", at_least=1
    )
    inner_loops: int = option(
        "epochs on the set between two updates (published: 1, 50, 10 at M = 1, 10, 50)", at_least=1
    )
    learning_rate: float = option("SGD's for the set (published: 0.1)", above=0)
    momentum: float = option("SGD's for the set (published: 0.5)", at_least=0, below=1)
    network_rate: float = option("SGD's for the network (published: 0.01)", above=0)
    network_batch: int = option("synthetic images in a step of the network (256)", at_least=1)
    initialisation: str = option(
        "noise: N(0, I) in normalised space; real: images of the data set (published)",
        choices=("noise", "real"),
    )
    log_every: int = option("networks between those whose updates are traced", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: real images with the weights' gradient, synthetic ones with that and its
    own gradient, and the network's training."""
    step = 3 * options.batch + 6 * options.ipc + 3 * options.inner_loops * options.ipc
    return options.iterations * options.outer_loops * classes * methods * step


def match_gradients(
    task: Task,
    options: Options,
    augmentation: Sequence[str],
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Condensed:
    """Condense by gradient matching, for each method of the panel.

    For each of K random networks, ``outer_loops`` times: update the set by Σ_c D(real gradient of
    class c, its synthetic gradient), then train the network on the set for ``inner_loops`` epochs,
    except after the last update. Every method trains a network of its own, on its own set; what a
    panel shares are the initial networks, minibatches and augmentations.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    data, network, device = task.data, task.network, task.device
    data.require(options.batch, "the condenser's batch")
    classes = len(data.class_names)
    purpose: Purpose = (task.seed, "condense", task.run)
    start = START[options.initialisation](data, options.ipc, (*purpose, "start")).to(device)
    labels = torch.arange(classes, device=device).repeat_interleave(options.ipc)
    sets = {name: start.clone() for name in task.methods}
    momenta = {name: torch.zeros_like(start) for name in task.methods}
    networks: dict[str, Weights] = {}
    traces: dict[str, list[dict[str, Any]]] = {name: [] for name in task.methods}
    loss, done = float("nan"), 0
    if (state := checkpoints.resume()) is not None:
        sets, momenta = state.group("sets", device), state.group("momenta", device)
        networks = {n: running.to(state.group(f"network {n}", device), device) for n in sets}
        done, loss, traces = (state.facts[key] for key in ("updates", "loss", "traces"))

    total = options.iterations * options.outer_loops
    for update in range(done, total):
        number, outer = divmod(update, options.outer_loops)
        log = number % options.log_every == 0 or number == options.iterations - 1
        if outer == 0:
            weights = running.to(network.draw(generator(*purpose, number, "network")), device)
            networks = dict.fromkeys(task.methods, weights)
        own = (*purpose, number, "outer", outer)
        real = minibatch(task, options.batch, augmentation, own)
        for name, calibration in task.methods.items():
            assert calibration is not None  # presets are checked
            weights = {key: w.detach().requires_grad_() for key, w in networks[name].items()}
            found, rows = real_gradients(network, weights, real, calibration, own, log)
            gradient, terms = _set_gradient(network, weights, sets[name], found, real.draws)
            momenta[name] = options.momentum * momenta[name] + gradient
            sets[name] = sets[name] - options.learning_rate * momenta[name]
            if outer < options.outer_loops - 1:
                weights = _train(network, weights, sets[name], labels, options, augmentation, own)
            networks[name] = {key: w.detach() for key, w in weights.items()}
            if log:
                traces[name] += traced(update, range(classes), terms, rows)
            loss = sum(terms)
        progress(update + 1, total, loss)
        tensors = {"sets": sets, "momenta": momenta}
        tensors |= {f"network {name}": weights for name, weights in networks.items()}
        checkpoints.offer(State(tensors, {"updates": update + 1, "loss": loss, "traces": traces}))
    return condensed(task, sets, traces)


def distance(
    real: Mapping[str, torch.Tensor], synthetic: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """1 − cosine of real and synthetic gradients for each output channel, summed over layers.

    Gradients of matrices (outputs, …), as in Zhao et al. 2021, Eq. 9.
    """
    terms = []
    for name, wanted in real.items():
        a, b = wanted.flatten(1), synthetic[name].flatten(1)
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + SMALLEST)
        terms.append((1 - cosine).sum())
    return torch.stack(terms).sum()


def _set_gradient(
    network: Network,
    weights: Weights,
    synthetic: torch.Tensor,
    real: Sequence[Mapping[str, torch.Tensor]],
    draws: Draw,
) -> tuple[torch.Tensor, list[float]]:
    """∇ of Σ_c D by synthetic inputs (C·M, C, H, W), and the classes' terms."""
    gradients, terms = [], []
    for c, own in enumerate(synthetic.chunk(len(real))):
        own = own.detach().requires_grad_()
        mine = Draw((draws.operations[c],), draws.uniforms[c : c + 1])
        inputs = augment(own[None], mine)[0]
        logits = running.logits_for_weights(network, weights, inputs)
        made = by_matrices(weights, losses(logits, c).mean(), create_graph=True)
        term = distance(real[c], made)
        gradients.append(torch.autograd.grad(term, own)[0])
        terms.append(float(term.detach()))
    return torch.cat(gradients), terms


def _train(
    network: Network,
    weights: Weights,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    options: Options,
    augmentation: Sequence[str],
    purpose: Purpose,
) -> Weights:
    """The weights after ``inner_loops`` epochs of plain SGD on the set."""
    draws = generator(*purpose, "inner")
    size = min(options.network_batch, len(labels))
    chunk = running.even_chunk(size, 1, labels.device.type)
    for _ in range(options.inner_loops):
        for chosen in torch.randperm(len(labels), generator=draws).split(size):
            drawn = draw(augmentation, len(chosen), draws, shared=True)
            batch = augment(inputs[chosen].unsqueeze(1), drawn).squeeze(1)
            rate = options.network_rate
            weights = step(network, weights, batch, labels[chosen], rate, chunk)
    return weights
