"""Gradient matching on pretrained victims (Alg. 1, Eq. 4; Geiping et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Crafting, Purpose, Scene, choose, craft
from rdmdc.checkpoints import Checkpoints
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.models.network import Weights
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@plugins.attack(Crafting, victims=True, passes=6)
def gradient_matching(
    scene: Scene, options: Crafting, progress: OnStep, checkpoints: Checkpoints
) -> Crafted:
    """Gradient matching, Alg. 1 (Geiping et al. 2021), on pretrained victims."""
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(gradient_matching_objective, scene, options, target_gradients(scene))
    return craft(scene, indices, options, objective, progress, checkpoints)


def target_gradients(scene: Scene) -> list[list[torch.Tensor]]:
    """∇_θ ℓ(x^t, y^adv, θ) for each victim: fixed, without augmentation (Eq. 4)."""
    inputs = scene.train.normalisation.normalise(scene.target.pixels.to(scene.device))[None]
    label = torch.tensor([scene.target.adversarial_label], device=scene.device)
    gradients = []
    for victim in scene.victims:
        weights = _trainable(victim, scene.device)
        loss = torch.nn.functional.cross_entropy(scene.network.logits(weights, inputs), label)
        gradients.append(list(torch.autograd.grad(loss, list(weights.values()))))
    return gradients


def gradient_matching_objective(
    scene: Scene,
    crafting: Crafting,
    wanted: Sequence[Sequence[torch.Tensor]],
    values: torch.Tensor,
    purpose: Purpose,
) -> Iterator[torch.Tensor]:
    """Eq. 4, a term a victim: (1 − cosine of wanted and the poisons' gradient) / victims.

    The cosine is of all parameters' gradients concatenated. Alg. 1 asks for differentiable
    augmentation: here DSA with one operation a step for all poisons and separate numbers for each,
    where Witches' Brew shifts by up to 8 pixels and flips in every step.
    """
    drawn = draw(
        crafting.augmentation, len(values), generator(*purpose, "augmentation"), shared=True
    )
    labels = torch.full((len(values),), scene.target.adversarial_label, device=values.device)
    for victim, target in zip(scene.victims, wanted, strict=True):
        inputs = scene.train.normalisation.normalise(values)
        inputs = augment(inputs.unsqueeze(1), drawn).squeeze(1)
        weights = _trainable(victim, scene.device)
        logits = running.logits_for_weights(scene.network, weights, inputs)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        poisons = torch.autograd.grad(
            loss, list(weights.values()), create_graph=True, materialize_grads=True
        )  # zeros for biases that a norm takes away
        product = torch.stack([(a * b).sum() for a, b in zip(target, poisons, strict=True)]).sum()
        yield (1 - product / (_norm(target) * _norm(poisons))) / len(scene.victims)


def _norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()


def _trainable(weights: Weights, device: str) -> Weights:
    return {n: v.clone().requires_grad_() for n, v in running.to(weights, device).items()}
