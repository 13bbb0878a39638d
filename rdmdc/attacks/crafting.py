"""Crafting poisons: one loop for all attacks that optimise an objective (Algs. 1 and 2).

Perturbations live in 255ths: a step of 1/255 in the direction of its sign stays on the grid of
uint8 pixels, so that rounding changes nothing and the bound |δ| ≤ eps holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from rdmdc import rates
from rdmdc.attacks.optimisers import OPTIMISERS, Moments
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.models import running
from rdmdc.models.augment import OPERATIONS, augment, draw
from rdmdc.models.network import Network, Weights
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, PoisonSet, RecordError, Target

CHUNK = {"cpu": 32, "cuda": 512}  # images differentiated at once

Purpose = tuple[int | str, ...]
Objective = Callable[["torch.Tensor", Purpose], Iterator["torch.Tensor"]]
"""Yields the terms of the loss of pixel values (P, C, H, W) for the draws of a purpose.

Each term is differentiated by itself, so that only one graph is held at a time."""
Crafted = tuple[PoisonSet, "pd.DataFrame"]
"""Poisons, and a trace with a row per restart and iteration."""


@dataclass(frozen=True)
class Crafting:
    """How poisons are crafted: R restarts of T steps within eps (Algs. 1 and 2)."""

    eps: int = option(
        "radius of the perturbation in l-infinity (§5.1: 64)",
        at_least=0,
        at_most=255,
        unit="255ths",
    )
    step: float = option("length of a step (§5.1: 1)", above=0, unit="255ths")
    restarts: int = option("R of Algs. 1 and 2; the paper gives no number", at_least=1)
    iterations: int = option("T of Algs. 1 and 2; the paper gives no number", at_least=0)
    optimiser: str = option(
        "sign of Adam's step (§3.2), or Adam of signs (Witches' Brew)", choices=tuple(OPTIMISERS)
    )
    scoring_draws: int = option(
        "draws of network and augmentation on which restarts are compared", at_least=1
    )
    augmentation: tuple[str, ...] = option(
        "operations of which DSA draws one", choices=tuple(OPERATIONS)
    )


@dataclass(frozen=True)
class Scene:
    """What an attacker has: clean training data, target, network and, if wanted, victims.

    ``poisons`` is the share of the class to poison, or a number of images.
    """

    train: LabelledImages
    target: Target
    network: Network
    victims: tuple[Weights, ...]
    poisons: str | int
    seed: int
    device: str

    @property
    def purpose(self) -> Purpose:
        """What all draws of this scene start with."""
        return (self.seed, "poison", self.target.seed)


def choose(scene: Scene, classes: Sequence[int]) -> torch.Tensor:
    """Indices (P,) of the images to poison, of each class its share, drawn by seed and target.

    Raises RecordError where a class has fewer images than are to be poisoned.
    """
    counts, starts = scene.train.counts(), scene.train.class_start()
    chosen = []
    for c in classes:
        total, wanted = int(counts[c]), scene.poisons
        number = wanted if isinstance(wanted, int) else rates.count(wanted, total)
        if not 0 < number <= total:
            raise RecordError(
                f"{number} poisons cannot replace images of class {scene.train.class_names[c]!r},"
                f" which has {total}; set the condition's poisons to 1..{total}"
            )
        order = torch.randperm(total, generator=generator(*scene.purpose, "indices", c))
        chosen.append(order[:number].sort().values + starts[c])
    return torch.cat(chosen)


def clean_images(scene: Scene, label: int, count: int, draws: torch.Generator) -> torch.Tensor:
    """Pixels (n, C, H, W) uint8 of at most ``count`` clean images of a class, drawn at random."""
    start, of = int(scene.train.class_start()[label]), int(scene.train.counts()[label])
    return scene.train.pixels[start + torch.randperm(of, generator=draws)[:count]]


def craft(
    scene: Scene,
    indices: torch.Tensor,
    crafting: Crafting,
    objective: Objective,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Crafted:
    """The loop of Algs. 1 and 2: random start, T projected steps, R restarts, the best one kept.

    The pseudocode overwrites δ* in each restart; the text keeps the best, and so does this, by the
    objective on draws common to all restarts: minima over single random networks compare noise.
    The trace has a row per restart and iteration, and one (iteration −1) for a restart's score.
    Raises RecordError where no restart's score is a number.
    """
    base = scene.train.pixels[indices].to(scene.device, torch.float32)
    low, high = (base - crafting.eps).clamp(min=0), (base + crafting.eps).clamp(max=255)
    rows: list[tuple[int, int, float]] = []
    best, best_score = base, float("inf")
    if (state := checkpoints.resume()) is not None:
        best, best_score = state.group("pixels", scene.device)["best"], state.facts["best_score"]
        rows = state.facts["rows"]
    for restart in range(state.facts["restart"] if state else 0, crafting.restarts):
        purpose = (*scene.purpose, "restart", restart)
        noise = torch.rand(base.shape, generator=generator(*purpose, "start")).to(scene.device)
        values = (base + (2 * noise - 1) * crafting.eps).round().clamp(low, high)
        moments: Moments = {}
        done = 0
        if state is not None:  # it is of the first restart here
            values = state.group("pixels", scene.device)["values"]
            moments, done = state.group("moments", scene.device), state.facts["iterations"]
            state = None
        for t in range(done, crafting.iterations):
            loss, gradient = differentiate(objective, values, (*purpose, t))
            change, moments = OPTIMISERS[crafting.optimiser](crafting, gradient, moments, t)
            values = (values - change).clamp(low, high)
            rows.append((restart, t, loss))
            progress(
                restart * crafting.iterations + t + 1,
                crafting.restarts * crafting.iterations,
                loss,
            )
            pixels = {"values": values, "best": best}
            facts = {"restart": restart, "iterations": t + 1, "best_score": best_score}
            checkpoints.offer(
                State({"pixels": pixels, "moments": moments}, {**facts, "rows": rows})
            )
        values = values.round().clamp(low, high)
        score = score_on_common_draws(scene, crafting, objective, values)
        rows.append((restart, -1, score))
        if score < best_score:
            best, best_score = values, score
    if crafting.restarts and best_score == float("inf"):
        raise RecordError(
            f"target {scene.target.seed}: the poisons' objective is not a number in any restart;"
            " look for victims whose gradient vanishes, or a clean_batch of 0"
        )
    poisons = PoisonSet(indices, scene.train.labels[indices], best.to("cpu", torch.uint8))
    return poisons, pd.DataFrame(rows, columns=["restart", "iteration", "objective"])


def score_on_common_draws(
    scene: Scene, crafting: Crafting, objective: Objective, values: torch.Tensor
) -> float:
    """Mean objective of pixel values over held-out draws that are the same for every restart."""
    purposes = [(*scene.purpose, "score", i) for i in range(crafting.scoring_draws)]
    return sum(_value(objective, values, p) for p in purposes) / len(purposes)


def _value(objective: Objective, values: torch.Tensor, purpose: Purpose) -> float:
    return sum(float(term.detach()) for term in objective(values, purpose))


def differentiate(
    objective: Objective, values: torch.Tensor, purpose: Purpose
) -> tuple[float, torch.Tensor]:
    """The sum of the objective's terms and its gradient (P, C, H, W) by pixel values."""
    values = values.detach().requires_grad_()
    loss, gradient = 0.0, torch.zeros_like(values)
    for term in objective(values, purpose):
        gradient += torch.autograd.grad(term, values)[0]
        loss += float(term.detach())
    return loss, gradient


def embed(scene: Scene, crafting: Crafting, values: torch.Tensor, purpose: Purpose) -> torch.Tensor:
    """Embeddings (n, D) of pixel values by a fresh network, all under one augmentation."""
    weights = running.to(scene.network.draw(generator(*purpose, "network")), scene.device)
    drawn = draw(crafting.augmentation, 1, generator(*purpose, "augmentation"), shared=False)
    inputs = augment(scene.train.normalisation.normalise(values)[None], drawn)[0]
    return running.embed(scene.network, weights, inputs, CHUNK[values.device.type])
