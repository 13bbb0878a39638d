"""Training on a condensed set that stays differentiable: what MTT and DD unroll."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rdmdc.models.augment import augment, draw
from rdmdc.models.network import Network, Weights


def unroll(
    network: Network,
    weights: Weights,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    rate: torch.Tensor,
    batches: Sequence[torch.Tensor],
    augmentation: Sequence[str],
    draws: torch.Generator,
) -> Weights:
    """Weights after a step of plain SGD on each batch of inputs (n, C, H, W).

    They are differentiable by inputs and rate, so that every step's graph is held. Networks run
    uncompiled: the kernels have no second derivatives by weights. A batch shares an operation of
    the augmentation and each image has numbers of its own.
    """
    for chosen in batches:
        drawn = draw(augmentation, len(chosen), draws, shared=True)
        batch = augment(inputs[chosen].unsqueeze(1), drawn).squeeze(1)
        loss = torch.nn.functional.cross_entropy(network.logits(weights, batch), labels[chosen])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {
            name: value - rate * gradient
            for (name, value), gradient in zip(weights.items(), gradients, strict=True)
        }
    return weights


def shuffled(count: int, size: int, draws: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of at most ``size`` of ``count`` indices, a fresh permutation after each pass."""
    while True:
        yield from torch.randperm(count, generator=draws).split(size)
