"""Condensation by distribution matching (Eq. 2) with a chosen estimate of the real mean (Alg. 3).

A panel of estimators runs in lockstep: one random network, minibatch and augmentation an iteration
for all, the real embeddings computed once. Nothing computed for one instance mixes with another's,
so that each instance's set is the same bits alone and in any panel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rdmdc.models import running as networks
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.deviation import trace_rows
from rdmdc.estimators.means import ESTIMATORS, Estimate
from rdmdc.models.running import ConvNet, Weights
from rdmdc.progress import OnStep
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, PoisonSet, RecordError, SyntheticSet

# real images at once: on a CPU so few that they and their embeddings stay in its cache
REAL_BLOCK = {"cpu": 512, "cuda": 4096}


@dataclass(frozen=True)
class Condensation:
    """What condensation does: M = ipc synthetic images and a minibatch of N = batch real ones a
    class, SGD on their sum of squared distances; ``initialisation`` is noise or real (§5.1)."""

    ipc: int
    batch: int
    iterations: int
    learning_rate: float
    momentum: float
    initialisation: str
    log_every: int


@dataclass(frozen=True)
class Iteration:
    """What one iteration shares over the panel and its classes: network θ and draws w_c."""

    weights: Weights
    draws: Draw
    purpose: tuple[int | str, ...]

    def generators(self, what: str, classes: Sequence[int]) -> list[torch.Generator]:
        """A generator per class for one kind of draw."""
        return [generator(*self.purpose, what, c) for c in classes]


def condense(
    train: LabelledImages,
    poisons: PoisonSet | None,
    network: ConvNet,
    strategy: Sequence[str],
    options: Condensation,
    panel: Mapping[str, Mapping[str, Any]],
    seed: int,
    run: int,
    device: str,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> dict[str, tuple[SyntheticSet, pd.DataFrame]]:
    """Alg. 3 for each instance of the panel: its synthetic set and its trace.

    ``panel`` maps an instance's name to ``function`` and that estimator's options. Deviation from
    the public DM implementation: the set returned is the one after the last update, and scored.
    Raises RecordError where a class has fewer than ``batch`` images or a poison does not fit.
    """
    if poisons is not None:
        poisons.check(train)
    source = _Source(train, poisons, options.batch)
    classes = len(train.class_names)
    initialise = INITIALISATIONS[options.initialisation]
    start = initialise(source, options.ipc, (seed, "condense", run, "start")).to(device)
    sets = {name: start.clone() for name in panel}
    momenta = {name: torch.zeros_like(start) for name in panel}
    traces: dict[str, list[dict[str, Any]]] = {name: [] for name in panel}
    loss = float("nan")  # of the panel's last instance when it was last logged
    done = 0
    if (state := checkpoints.resume()) is not None:
        sets, momenta = state.group("sets", device), state.group("momenta", device)
        done, loss, traces = (state.facts[key] for key in ("iterations", "loss", "traces"))

    for number in range(done, options.iterations):
        purpose = (seed, "condense", run, number)
        weights = networks.to(network.draw(generator(*purpose, "network")), device)
        draws = draw(strategy, classes, generator(*purpose, "augmentation"), shared=False)
        iteration = Iteration(weights, draws, purpose)
        log = number % options.log_every == 0 or number == options.iterations - 1

        means, rows = _calibrated_means(source, network, iteration, panel, device, log)
        for name in panel:
            gradient, terms = _gradient(network, iteration, sets[name], means[name], options.ipc)
            momenta[name] = options.momentum * momenta[name] + gradient
            sets[name] = sets[name] - options.learning_rate * momenta[name]
            if log:
                traces[name] += [
                    {"iteration": number, "class": c, "loss": term, **row}
                    for c, (term, row) in enumerate(zip(terms.tolist(), rows[name], strict=True))
                ]
                loss = float(terms.sum())
        progress(number + 1, options.iterations, loss)
        facts = {"iterations": number + 1, "loss": loss, "traces": traces}
        checkpoints.offer(State({"sets": sets, "momenta": momenta}, facts))

    labels = torch.arange(classes).repeat_interleave(options.ipc)
    return {
        name: (
            SyntheticSet(sets[name].cpu(), labels, train.class_names, train.normalisation),
            pd.DataFrame(traces[name]),
        )
        for name in panel
    }


class _Source:
    """Minibatches of a class-sorted split with its poisons laid over it, without copying it."""

    def __init__(self, train: LabelledImages, poisons: PoisonSet | None, batch: int) -> None:
        self.train, self.poisons, self.batch = train, poisons, batch
        self.counts, self.starts = train.counts().tolist(), train.class_start().tolist()
        for name, count in zip(train.class_names, self.counts, strict=True):
            if count < batch:
                raise RecordError(
                    f"condense.batch is {batch}, but class {name!r} has {count} images; lower it"
                )
        self.poison_at = torch.full((len(train.labels),), -1, dtype=torch.int32)
        if poisons is not None:
            self.poison_at[poisons.indices] = torch.arange(len(poisons.indices), dtype=torch.int32)

    def draw(self, label: int, count: int, purpose: tuple[int | str, ...]) -> tuple[Tensor, Tensor]:
        """``count`` images of a class without replacement: pixels (count, C, H, W), poisoned."""
        order = torch.randperm(self.counts[label], generator=generator(*purpose, label))
        indices = order[:count] + self.starts[label]
        pixels, which = self.train.pixels[indices], self.poison_at[indices].long()
        poisoned = which >= 0
        if self.poisons is not None and bool(poisoned.any()):
            pixels[poisoned] = self.poisons.pixels[which[poisoned]]
        return pixels, poisoned


def noise(source: _Source, ipc: int, purpose: tuple[int | str, ...]) -> Tensor:
    """Start from N(0, I) in normalised space (Alg. 3): inputs (C·M, C, H, W)."""
    shape = (len(source.counts) * ipc, *source.train.pixels.shape[1:])
    return torch.randn(shape, generator=generator(*purpose))


def real(source: _Source, ipc: int, purpose: tuple[int | str, ...]) -> Tensor:
    """Start from real images of each class, poisons among them, as §5.1 warns.

    Raises RecordError where a class has fewer than ``ipc`` images.
    """
    for name, count in zip(source.train.class_names, source.counts, strict=True):
        if count < ipc:
            raise RecordError(
                f"condense.ipc is {ipc}, but class {name!r} has {count} images to start from;"
                " lower it or start from noise"
            )
    drawn = [source.draw(c, ipc, purpose)[0] for c in range(len(source.counts))]
    return source.train.normalisation.normalise(torch.cat(drawn))


INITIALISATIONS = {f.__name__: f for f in (noise, real)}


@torch.no_grad()
def _calibrated_means(
    source: _Source,
    network: ConvNet,
    iteration: Iteration,
    panel: Mapping[str, Mapping[str, Any]],
    device: str,
    log: bool,
) -> tuple[dict[str, Tensor], dict[str, list[dict[str, Any]]]]:
    """Each instance's estimates (C, D) of the real means from one minibatch, and if ``log`` the
    rows of its trace, a class each."""
    means: dict[str, list[Tensor]] = {name: [] for name in panel}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in panel}
    for block in torch.arange(len(source.counts)).split(max(1, REAL_BLOCK[device] // source.batch)):
        classes = block.tolist()
        embeddings, poisoned = _real_embeddings(source, network, iteration, classes, device)
        for name, instance in panel.items():
            estimator = partial(_estimate, instance, iteration)
            estimate = estimator(classes, embeddings)
            means[name].append(estimate.value)
            if log:
                rows[name] += trace_rows(embeddings, poisoned, estimate, classes, estimator)
    return {name: torch.cat(parts) for name, parts in means.items()}, rows


@torch.no_grad()
def _real_embeddings(
    source: _Source, network: ConvNet, iteration: Iteration, classes: Sequence[int], device: str
) -> tuple[Tensor, Tensor]:
    """Embeddings (B, N, D) of a fresh minibatch of B classes, and which are poisoned (B, N)."""
    drawn = [source.draw(c, source.batch, (*iteration.purpose, "batch")) for c in classes]
    pixels = torch.stack([pixels for pixels, _ in drawn]).to(device)
    inputs = augment(
        source.train.normalisation.normalise(pixels), _select(iteration.draws, classes)
    )
    embeddings = networks.embed_all(network, iteration.weights, inputs.flatten(0, 1))
    poisoned = torch.stack([poisoned for _, poisoned in drawn]).to(device)
    return embeddings.view(len(classes), source.batch, -1), poisoned


def _select(draws: Draw, classes: Sequence[int]) -> Draw:
    return Draw(tuple(draws.operations[c] for c in classes), draws.uniforms[list(classes)])


def _estimate(
    instance: Mapping[str, Any], iteration: Iteration, classes: Sequence[int], embeddings: Tensor
) -> Estimate:
    """Calibrate (Alg. 3) by one instance: the function that it names, with its options."""
    options = {key: value for key, value in instance.items() if key != "function"}
    generators = iteration.generators("estimate", classes)
    return ESTIMATORS[instance["function"]](embeddings, generators, **options)


def _gradient(
    network: ConvNet, iteration: Iteration, synthetic: Tensor, means: Tensor, ipc: int
) -> tuple[Tensor, Tensor]:
    """∇ of Σ_c ‖mean_j Φ(A(s_j^c)) − μ̂_c‖² for synthetic (C·M, C, H, W), and its terms (C,).

    Classes do not meet in the loss, so each chunk of whole classes is differentiated by itself.
    """
    gradients, losses = [], []
    per_chunk = networks.even_chunk(len(means), ipc, synthetic.device.type)
    for part in torch.arange(len(means)).split(per_chunk):
        classes = part.tolist()
        chunk = synthetic[classes[0] * ipc : (classes[-1] + 1) * ipc].detach().requires_grad_()
        inputs = augment(
            chunk.view(len(classes), ipc, *chunk.shape[1:]), _select(iteration.draws, classes)
        )
        embeddings = networks.embed(
            network, iteration.weights, inputs.flatten(0, 1), per_chunk * ipc
        )
        distance = embeddings.view(len(classes), ipc, -1).mean(1) - means[classes]
        terms = distance.square().sum(1)
        (gradient,) = torch.autograd.grad(terms.sum(), chunk)
        gradients.append(gradient)
        losses.append(terms.detach())
    return torch.cat(gradients), torch.cat(losses)
