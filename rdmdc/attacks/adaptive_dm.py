"""DM poisoning by an attacker who knows that directions of contrast are screened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Crafting, Purpose, Scene, choose, craft, embed
from rdmdc.checkpoints import Checkpoints
from rdmdc.contrast import top_contrast
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options(Crafting):
    """How poisons are crafted, and how much of their effect they give up to hide."""

    hiding: float = option(
        "weight of the poisons' squared distance along the directions of contrast; 0: DM poisoning",
        at_least=0,
    )
    directions: int = option("directions of contrast that the poisons hide in", at_least=1)
    class_images: int = option(
        "images of the adversarial class, poisons among them, that the directions are found from",
        at_least=2,
    )
    others: int = option("images of other classes that they are compared with", at_least=2)
    ridge: float = option(
        "λ as a share of the other classes' mean variance over their rank", above=0
    )
    power_iterations: int = option("steps of the block power iteration", at_least=1)


@plugins.attack(Options, passes=8)
def adaptive_dm(
    scene: Scene, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """DM poisoning (Alg. 2) that also keeps its poisons near their class where screens look.

    Not in the paper. The attacker knows everything of the defence by contrast but its random draws:
    in each step's random network he finds the directions of contrast of the class with his poisons
    in place, and adds to Eq. 5 the poisons' mean squared distance from the class's mean along them.
    """
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(adaptive_objective, scene, options, indices)
    return craft(scene, indices, options, objective, progress, checkpoints)


def adaptive_objective(
    scene: Scene, options: Options, indices: torch.Tensor, values: torch.Tensor, purpose: Purpose
) -> Iterator[torch.Tensor]:
    """Eq. 5 + hiding · mean_p Σ_k ⟨Φ(p) − r̄, w_k⟩², w_k unit vectors along top contrasts.

    ``indices`` (P,) are the poisons' places in the training split, values (P, C, H, W) their
    pixels. The directions and the class's mean r̄ are constants: no gradient flows through them.
    """
    target = scene.target.pixels.to(values)[None]
    embeddings = embed(scene, options, torch.cat([target, values]), purpose)
    loss = (embeddings[0] - embeddings[1:].mean(0)).square().sum()
    if options.hiding > 0:
        mean, directions = screened(scene, options, indices, embeddings[1:].detach(), purpose)
        along = (embeddings[1:] - mean) @ directions
        loss = loss + options.hiding * along.square().sum(1).mean()
    yield loss


def screened(
    scene: Scene,
    options: Options,
    indices: torch.Tensor,
    poisons: torch.Tensor,
    purpose: Purpose,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) of the class as delivered, and unit directions of contrast (D, K) in one network.

    poisons (P, D) are the embeddings of the poisons at ``indices``.
    """
    drawn = generator(*purpose, "screened")
    label = scene.target.adversarial_label
    counts, starts = scene.train.counts().tolist(), scene.train.class_start().tolist()
    order = torch.randperm(counts[label], generator=drawn)[: options.class_images] + starts[label]
    place = torch.full((len(scene.train.labels),), -1)
    place[indices] = torch.arange(len(indices))
    elsewhere = (scene.train.labels != label).nonzero().squeeze(1)
    compared = elsewhere[torch.randperm(len(elsewhere), generator=drawn)[: options.others]]
    clean = order[place[order] < 0]
    with torch.no_grad():
        pixels = scene.train.pixels[torch.cat([clean, compared])]
        found = embed(scene, options, pixels.to(poisons), purpose)
        own = torch.cat([found[: len(clean)], poisons[place[order[place[order] >= 0]]]])
        mean = own.mean(0)
        rest = without_class_means(found[len(clean) :], scene.train.labels[compared])
        wanted, steps = options.directions, options.power_iterations
        contrast = top_contrast(own - mean, rest, options.ridge, steps, drawn, wanted)
        directions = contrast.directions[:, : options.directions]
        return mean, torch.nn.functional.normalize(directions, dim=0)


def without_class_means(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Vectors (R, D), each without the mean of those of its label (R,)."""
    known, which = labels.to(vectors.device).unique(return_inverse=True)
    sums = vectors.new_zeros(len(known), vectors.shape[1]).index_add(0, which, vectors)
    return vectors - (sums / which.bincount()[:, None])[which]
