"""Matching class means in random networks (Alg. 3): what DM and its relatives share.

They differ in the vectors whose means they match, and in what their images are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.deviation import trace_rows
from rdmdc.condensers.sets import Condensed, condensed, traced
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
    iterations: int = option("updates of the condensed set (§5.1: 20 000)", at_least=1)
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
    """Alg. 3 for each method of the panel: its condensed set and its trace.

    The panel runs in lockstep: one random network, minibatch and augmentation an iteration for all,
    the real vectors computed once. Classes do not meet in the loss, so those that are the same as
    in ``task.clean`` are taken from there. Raises RecordError where a class has fewer images than
    ``batch``.
    """
    data, device = task.data, task.device
    data.require(options.batch, "the condenser's batch")
    own_classes = {name: task.classes_of(name) for name in task.methods}
    purpose: Purpose = (task.seed, "condense", task.run)
    start = START[options.initialisation](data, options.ipc, (*purpose, "start")).to(device)
    sets = {name: start[_rows(own, options.ipc)] for name, own in own_classes.items()}
    momenta = {name: torch.zeros_like(value) for name, value in sets.items()}
    traces: dict[str, list[dict[str, Any]]] = {name: [] for name in task.methods}
    loss = float("nan")  # of the panel's last method when it was last logged
    done = 0
    if (state := checkpoints.resume()) is not None:
        sets, momenta = state.group("sets", device), state.group("momenta", device)
        done, loss, traces = (state.facts[key] for key in ("iterations", "loss", "traces"))

    for number in range(done, options.iterations):
        iteration = begin(task, (*purpose, number))
        log = number % options.log_every == 0 or number == options.iterations - 1

        means, rows = calibrated_means(task, options.batch, embedding, iteration, own_classes, log)
        for name, (gradient, terms) in gradients(task, embedding, iteration, sets, means).items():
            momenta[name] = options.momentum * momenta[name] + gradient
            sets[name] = sets[name] - options.learning_rate * momenta[name]
            if log:
                traces[name] += traced(number, own_classes[name], terms.tolist(), rows[name])
                loss = float(terms.sum())
        progress(number + 1, options.iterations, loss)
        facts = {"iterations": number + 1, "loss": loss, "traces": traces}
        checkpoints.offer(State({"sets": sets, "momenta": momenta}, facts))
    whole = {
        name: _with_clean(task, options.ipc, name, sets[name].cpu(), pd.DataFrame(traces[name]))
        for name in task.methods
    }
    inputs = {name: values for name, (values, _) in whole.items()}
    return condensed(task, inputs, {name: rows for name, (_, rows) in whole.items()})


def _with_clean(
    task: Task, ipc: int, method: str, own_inputs: torch.Tensor, own_rows: pd.DataFrame
) -> tuple[torch.Tensor, pd.DataFrame]:
    """A method's inputs and trace: of its own classes as they were condensed here, the others'
    as in the clean case."""
    own = task.classes_of(method)
    if task.clean is None or len(own) == len(task.data.class_names):
        return own_inputs, own_rows
    clean, rows = task.clean.condensed[method]
    inputs = clean.inputs.clone()
    inputs[_rows(own, ipc)] = own_inputs
    rows = pd.concat([own_rows, rows[~rows["class"].isin(own)]], ignore_index=True)
    return inputs, rows.sort_values(["iteration", "class"], ignore_index=True)


def _rows(classes: Sequence[int], ipc: int) -> torch.Tensor:
    """Indices (k·M,) of some classes' images in a set of M a class."""
    return (torch.tensor(classes, dtype=torch.int64)[:, None] * ipc + torch.arange(ipc)).flatten()


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


def calibrated_means(
    task: Task,
    batch: int,
    embedding: Embedding,
    iteration: Iteration,
    own_classes: Mapping[str, Sequence[int]],
    log: bool,
) -> tuple[dict[str, dict[int, torch.Tensor]], dict[str, list[dict[str, Any]]]]:
    """Each method's estimates of the real means (D,) of its own classes, from one minibatch, and if
    ``log`` the rows of its trace, one a class."""
    means: dict[str, dict[int, torch.Tensor]] = {name: {} for name in task.methods}
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
        for name, calibration in chosen.items():
            classes, embeddings, poisoned = _only(own_classes[name], *block)
            if not classes:
                continue
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
            means[name].update(zip(classes, found.value, strict=True))
            if log:
                rows[name] += trace_rows(embeddings, poisoned, found, classes, again)

    with torch.no_grad():
        needed = {c for name in task.methods for c in own_classes[name]}
        for part in torch.arange(len(task.data.class_names)).split(per_block):
            classes = [c for c in part.tolist() if c in needed]
            if not classes:
                continue
            block = (classes, *_real_embeddings(task, batch, embedding, iteration, classes))
            estimate(lone, block, None)
            if across:
                held.append(block)
        if across:
            everything = torch.cat([embeddings for _, embeddings, _ in held])
            for block in held:
                estimate(across, block, everything)
    return means, rows


def _only(
    own: Sequence[int], classes: list[int], embeddings: torch.Tensor, poisoned: torch.Tensor
) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """A block of embeddings (B, N, D) without the classes that are not a method's own."""
    at = [i for i, c in enumerate(classes) if c in own]
    if len(at) == len(classes):
        return classes, embeddings, poisoned
    return [classes[i] for i in at], embeddings[at], poisoned[at]


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


def gradients(
    task: Task,
    embedding: Embedding,
    iteration: Iteration,
    sets: Mapping[str, torch.Tensor],
    means: Mapping[str, Mapping[int, torch.Tensor]],
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each method with its set (k·M, C, H, W) and the means of its k ≥ 1 classes: ∇ of
    Σ_c ‖mean_j Φ(A(s_j^c)) − μ̂_c‖², and the terms (k,) of that sum.

    Classes and methods do not meet in the loss, so each chunk of whole classes is differentiated by
    itself. Methods' sets of one class share its draw and lie together.
    """
    ipc = next((len(sets[name]) // len(own) for name, own in means.items() if own), 1)
    parts = {name: value.split(ipc) for name, value in sets.items()}
    groups = [(name, c, parts[name][i]) for name in sets for i, c in enumerate(means[name])]
    groups.sort(key=lambda group: group[1])
    per_chunk = running.even_chunk(len(task.data.class_names), ipc, task.device)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in sets}
    losses: dict[str, list[torch.Tensor]] = {name: [] for name in sets}
    for first in range(0, len(groups), per_chunk):
        names, classes, images = zip(*groups[first : first + per_chunk], strict=True)
        chunk = torch.stack(images).detach().requires_grad_()
        inputs = _augment(chunk, classes, iteration.draws)
        inputs = inputs.flatten(0, 1)
        embeddings = embedding(task.network, iteration.weights, inputs, per_chunk * ipc)
        wanted = torch.stack([means[name][c] for name, c in zip(names, classes, strict=True)])
        terms = (embeddings.view(len(names), ipc, -1).mean(1) - wanted).square().sum(1)
        (gradient,) = torch.autograd.grad(terms.sum(), chunk)
        for name, own, term in zip(names, gradient, terms.detach(), strict=True):
            found[name].append(own)
            losses[name].append(term)
    return {
        name: (torch.cat(found[name]), torch.stack(losses[name])) for name in sets if means[name]
    }


def _augment(groups: torch.Tensor, classes: Sequence[int], draws: Draw) -> torch.Tensor:
    """Groups (G, M, C, H, W) under their classes' draws; those of one class lie side by side."""
    runs = list(dict.fromkeys(classes))
    lengths = [classes.count(c) for c in runs]
    by_class = [
        augment(part.flatten(0, 1)[None], _select(draws, [c])).view_as(part)
        for c, part in zip(runs, groups.split(lengths), strict=True)
    ]
    return torch.cat(by_class)
