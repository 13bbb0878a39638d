"""Coresets: real images of each class, chosen by their embeddings in random networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.sets import Condensed, same_for_all
from rdmdc.condensers.task import Purpose, Task
from rdmdc.models import running
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator

Choice = Callable[["torch.Tensor", int], "torch.Tensor"]
"""Rows (M,) that are chosen of embeddings (N, D) in double precision."""


@dataclass(frozen=True)
class Options:
    """How many images are chosen, and what they are compared by."""

    ipc: int = option("M, images chosen of each class", at_least=1)
    pool: int = option(
        "images of each class that are compared, drawn at random where it has more", at_least=1
    )
    networks: int = option("random networks whose embeddings are joined", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: each compared image once in each network."""
    return classes * options.pool * options.networks


def choose(
    task: Task, options: Options, choice: Choice, progress: OnStep, checkpoints: Checkpoints
) -> Condensed:
    """The images that ``choice`` takes of each class, the same for every method of the panel.

    Images are embedded without augmentation in ``networks`` random networks, and an image's vector
    is its embeddings one after the other. Raises RecordError where a class has fewer than ``ipc``
    images.
    """
    data, classes = task.data, len(task.data.class_names)
    data.require(options.ipc, "ipc")
    purpose: Purpose = (task.seed, "condense", task.run)
    state = checkpoints.resume()
    chosen = state.group("chosen", "cpu") if state is not None else {}
    for label in range(len(chosen), classes):
        kept = data.indices(label)
        pool = max(options.pool, options.ipc)
        order = torch.randperm(len(kept), generator=generator(*purpose, "pool", label))
        indices = kept[order[:pool].sort().values]
        vectors = _embeddings(task, options.networks, purpose, indices)
        chosen[str(label)] = indices[choice(vectors.double(), options.ipc)]
        progress(label + 1, classes, float("nan"))
        checkpoints.offer(State({"chosen": chosen}, {}))
    pixels = torch.cat([data.pixels(chosen[str(label)]) for label in range(classes)])
    inputs = data.normalisation.normalise(pixels)
    return same_for_all(task, inputs)


def _embeddings(task: Task, networks: int, purpose: Purpose, indices: torch.Tensor) -> torch.Tensor:
    """The images' embeddings in all networks, joined: (N, networks · D)."""
    inputs = task.data.normalisation.normalise(task.data.pixels(indices).to(task.device))
    joined = []
    for number in range(networks):
        weights = task.network.draw(generator(*purpose, "network", number))
        joined.append(
            running.embed_all(task.network, running.to(weights, task.device), inputs).cpu()
        )
    return torch.cat(joined, 1)
