"""Matching class means in random networks (Alg. 3): what DM and its relatives share.

They differ in the vectors whose means they match, and in what their images are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.deviation import trace_rows
from rdmdc.condensers.sets import Condensed, condensed
from rdmdc.condensers.starts import START
from rdmdc.condensers.task import Calibration, Purpose, Task, sample_others
from rdmdc.models import running
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.models.network import Network, Weights
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator

Embedding = Callable[[Network, Weights, "torch.Tensor", int], "torch.Tensor"]
"""Vectors (N, D) of inputs (N, C, H, W), differentiable once, and how many inputs at a time."""

# real images at once: on a CPU so few that they and their embeddings stay in its cache
REAL_BLOCK = {"cpu": 512, "cuda": 4096}


@dataclass(frozen=True)
class Options:
    """How distribution matching condenses."""

    ipc: int = option("M, synthetic images per class (§5.1: 50)", at_least=1)
    batch: int = option("N, real images per class and iteration (§5.1: 256)", at_least=2)
    iterations: int = option("updates of the synthetic set (§5.1: 20 000)", at_least=1)
    learning_rate: float = option("SGD's, for the sum over classes (§5.1: 1.0)", above=0)
    momentum: float = option("SGD's (§5.1: 0.5)", at_least=0, below=1)
    initialisation: str = option(
        "noise: N(0, I) (Alg. 3); real: images of the data set (§5.1 warns)",
        choices=("noise", "real"),
    )
    log_every: int = option("iterations between rows of the trace", at_least=1)


@dataclass(frozen=True)
class Iteration:
    """What one iteration shares over the panel and its classes: network θ and draws w_c."""

    weights: Weights
    draws: Draw
    purpose: tuple[int | str, ...]


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes of one image: real ones once, synthetic ones with their gradient."""
    return options.iterations * classes * (options.batch + 2 * methods * options.ipc)


def match_means(
    task: Task,
    options: Options,
    embedding: Embedding,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Condensed:
    """Alg. 3 for each method of the panel: its synthetic set and its trace.

    The panel runs in lockstep: one random network, minibatch and augmentation an iteration for all,
    the real vectors computed once. Raises RecordError where a class has fewer images than
    ``batch``.
    """
    data, device = task.data, task.device
    data.require(options.batch, "condensers' batch")
    purpose: Purpose = (task.seed, "condense", task.run)
    start = START[options.initialisation](data, options.ipc, (*purpose, "start")).to(device)
    sets = {name: start.clone() for name in task.methods}
    momenta = {name: torch.zeros_like(start) for name in task.methods}
    traces: dict[str, list[dict[str, Any]]] = {name: [] for name in task.methods}
    loss = float("nan")  # of the panel's last method when it was last logged
    done = 0
    if (state := checkpoints.resume()) is not None:
        sets, momenta = state.group("sets", device), state.group("momenta", device)
        done, loss, traces = (state.facts[key] for key in ("iterations", "loss", "traces"))

    for number in range(done, options.iterations):
        iteration = begin(task, (*purpose, number))
        log = number % options.log_every == 0 or number == options.iterations - 1

        means, rows = calibrated_means(task, options.batch, embedding, iteration, log)
        for name in task.methods:
            gradient, terms = set_gradient(
                task.network, embedding, iteration, sets[name], means[name]
            )
            momenta[name] = options.momentum * momenta[name] + gradient
            sets[name] = sets[name] - options.learning_rate * momenta[name]
            if log:
                traces[name] += trace(number, terms, rows[name])
                loss = float(terms.sum())
        progress(number + 1, options.iterations, loss)
        facts = {"iterations": number + 1, "loss": loss, "traces": traces}
        checkpoints.offer(State({"sets": sets, "momenta": momenta}, facts))
    return condensed(task, sets, traces)


def begin(task: Task, purpose: Purpose) -> Iteration:
    """An iteration's network and draws, for its purpose."""
    weights = running.to(task.network.draw(generator(*purpose, "network")), task.device)
    draws = draw(
        task.augmentation,
        len(task.data.class_names),
        generator(*purpose, "augmentation"),
        shared=False,
    )
    return Iteration(weights, draws, purpose)


def trace(
    number: int, terms: torch.Tensor, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The trace's rows of an iteration: each class's loss, and what poisons did to its mean."""
    return [
        {"iteration": number, "class": c, "loss": term, **row}
        for c, (term, row) in enumerate(zip(terms.tolist(), rows, strict=True))
    ]


def calibrated_means(
    task: Task, batch: int, embedding: Embedding, iteration: Iteration, log: bool
) -> tuple[dict[str, torch.Tensor], dict[str, list[dict[str, Any]]]]:
    """Each method's estimates (C, D) of the real means from one minibatch, and if ``log`` the rows
    of its trace, one a class."""
    means: dict[str, list[torch.Tensor]] = {name: [] for name in task.methods}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in task.methods}
    calibrations = {n: c for n, c in task.methods.items() if isinstance(c, Calibration)}
    lone = {n: c for n, c in calibrations.items() if not c.estimator.facts["across_classes"]}
    across = {n: c for n, c in calibrations.items() if n not in lone}
    held: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []
    per_block = max(1, REAL_BLOCK[task.device] // batch)

    def estimate(
        chosen: Mapping[str, Calibration],
        block: tuple[list[int], torch.Tensor, torch.Tensor],
        everything: torch.Tensor | None,
    ) -> None:
        classes, embeddings, poisoned = block
        for name, calibration in chosen.items():
            others = None
            if everything is not None:
                sampled = generator(*iteration.purpose, "others")
                others = sample_others(everything, calibration.options.others, sampled)

            def again(
                classes: Sequence[int],
                vectors: torch.Tensor,
                calibration: Calibration = calibration,
                others: Any = others,
            ) -> Any:
                return calibration(vectors, classes, iteration.purpose, others)

            found = again(classes, embeddings)
            means[name].append(found.value)
            if log:
                rows[name] += trace_rows(embeddings, poisoned, found, classes, again)

    with torch.no_grad():
        for part in torch.arange(len(task.data.class_names)).split(per_block):
            classes = part.tolist()
            block = (classes, *_real_embeddings(task, batch, embedding, iteration, classes))
            estimate(lone, block, None)
            if across:
                held.append(block)
        if across:
            everything = torch.cat([embeddings for _, embeddings, _ in held])
            for block in held:
                estimate(across, block, everything)
    return {name: torch.cat(parts) for name, parts in means.items()}, rows


def _real_embeddings(
    task: Task, batch: int, embedding: Embedding, iteration: Iteration, classes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (B, N, D) of a fresh minibatch of B classes, and which are poisoned (B, N)."""
    drawn = [task.data.draw(c, batch, generator(*iteration.purpose, "batch", c)) for c in classes]
    pixels = torch.stack([pixels for pixels, _ in drawn]).to(task.device)
    inputs = augment(task.data.normalisation.normalise(pixels), _select(iteration.draws, classes))
    chunk = running.CHUNK[inputs.device.type]
    embeddings = embedding(task.network, iteration.weights, inputs.flatten(0, 1), chunk)
    poisoned = torch.stack([poisoned for _, poisoned in drawn]).to(task.device)
    return embeddings.view(len(classes), batch, -1), poisoned


def _select(draws: Draw, classes: Sequence[int]) -> Draw:
    return Draw(tuple(draws.operations[c] for c in classes), draws.uniforms[list(classes)])


def set_gradient(
    network: Network,
    embedding: Embedding,
    iteration: Iteration,
    synthetic: torch.Tensor,
    means: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """∇ of Σ_c ‖mean_j Φ(A(s_j^c)) − μ̂_c‖² for synthetic (C·M, C, H, W), and its terms (C,).

    Classes do not meet in the loss, so each chunk of whole classes is differentiated by itself.
    """
    ipc = len(synthetic) // len(means)
    gradients, losses = [], []
    per_chunk = running.even_chunk(len(means), ipc, synthetic.device.type)
    for part in torch.arange(len(means)).split(per_chunk):
        classes = part.tolist()
        chunk = synthetic[classes[0] * ipc : (classes[-1] + 1) * ipc].detach().requires_grad_()
        inputs = augment(
            chunk.view(len(classes), ipc, *chunk.shape[1:]), _select(iteration.draws, classes)
        )
        embeddings = embedding(network, iteration.weights, inputs.flatten(0, 1), per_chunk * ipc)
        distance = embeddings.view(len(classes), ipc, -1).mean(1) - means[classes]
        terms = distance.square().sum(1)
        (gradient,) = torch.autograd.grad(terms.sum(), chunk)
        gradients.append(gradient)
        losses.append(terms.detach())
    return torch.cat(gradients), torch.cat(losses)
