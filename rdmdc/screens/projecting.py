"""Images along their class's directions of contrast, in many random networks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from rdmdc.contrast import top_contrast
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.models.network import Weights
from rdmdc.options import option
from rdmdc.screens.screening import Suspects

BLOCK = 1024  # images normalised, augmented and embedded at once
FEWEST = 32  # images that a class's mean is taken from, where others are compared with it


@dataclass(frozen=True)
class Projecting:
    """How images are projected on directions of contrast."""

    networks: int = option("random networks, each with an augmentation draw of its own", at_least=1)
    others: int = option(
        "images of other classes that a class is compared with, in each network", at_least=2
    )
    ridge: float = option(
        "λ as a share of the other classes' mean variance over their rank", above=0
    )
    power_iterations: int = option("steps of the block power iteration", at_least=1)
    sample: int = option(
        "images of a class, at most, that its directions are found from; it bounds the memory",
        at_least=2,
    )


def project(
    suspects: Suspects, options: Projecting, number: int, directions: int
) -> list[torch.Tensor]:
    """Projections of each class's images on its top directions in one random network.

    A list of C tensors (n_c, K) float32 on the CPU, images in the order of ``images.indices``; K is
    ``directions``, or fewer in a class of fewer images. They count standard deviations of the other
    classes (`rdmdc.contrast`). All images go through the same ``number``-th network under the same
    augmentation draw. Embeddings of one class's sample and of the compared images are all that is
    held at once. Raises ContrastError where there is no second class to compare with.
    """
    classes = range(len(suspects.images.class_names))
    drawn = suspects.network.draw(suspects.generator("network", number))
    weights = running.to(drawn, suspects.device)
    rows, labels = _compared(suspects, options, number, weights)
    projections = []
    for c in classes:
        generator = suspects.generator("sample", number, c)
        indices = suspects.images.indices(c)
        order = torch.randperm(len(indices), generator=generator)
        sampled, rest = order[: options.sample], order[options.sample :]
        embeddings = embed_under_draw(suspects, number, weights, indices[sampled])
        mean = embeddings.mean(0)
        others = rows[labels != c]
        chosen = torch.randperm(len(others), generator=generator)[: options.others]
        found = top_contrast(
            embeddings - mean,
            others[chosen.to(others.device)],
            options.ridge,
            options.power_iterations,
            generator,
            directions,
        )
        w = found.directions[:, :directions]
        along = torch.zeros(len(indices), w.shape[1])
        along[sampled] = ((embeddings - mean) @ w).cpu()
        for part in rest.split(BLOCK) if len(rest) else ():
            embedded = embed_under_draw(suspects, number, weights, indices[part])
            along[part] = ((embedded - mean) @ w).cpu()
        projections.append(along)
    return projections


def passes(options: Projecting) -> float:
    """Forward passes of a training image, about: some are embedded again to be compared with."""
    return 1.2 * options.networks


def _compared(
    suspects: Suspects, options: Projecting, number: int, weights: Weights
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (R, D) of all classes, as many of each, without their class's mean, and labels (R,).

    There are enough that ``others`` of them are left without any one class.
    """
    classes = len(suspects.images.class_names)
    each = max(ceil(options.others / max(1, classes - 1)), FEWEST)
    rows, labels = [], []
    for c in range(classes):
        indices = suspects.images.indices(c)
        generator = suspects.generator("compared", number, c)
        chosen = indices[torch.randperm(len(indices), generator=generator)[:each]]
        embeddings = embed_under_draw(suspects, number, weights, chosen)
        rows.append(embeddings - embeddings.mean(0))
        labels.append(torch.full((len(chosen),), c))
    return torch.cat(rows), torch.cat(labels).to(rows[0].device)


def embed_under_draw(
    suspects: Suspects, number: int, weights: Weights, indices: torch.Tensor
) -> torch.Tensor:
    """Embeddings (n, D) of the images at some indices, under the network's augmentation draw."""
    images = suspects.images
    generator = suspects.generator("augmentation", number)
    drawn = draw(suspects.augmentation, 1, generator, shared=True)
    embedded = []
    for part in indices.split(BLOCK):
        inputs = images.normalisation.normalise(images.pixels(part).to(suspects.device))
        inputs = augment(inputs[None], drawn)[0]
        embedded.append(running.embed_all(suspects.network, weights, inputs))
    return torch.cat(embedded)
