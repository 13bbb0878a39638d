"""A step of plain SGD that nothing differentiates: MTT's experts, and DC's networks."""

from __future__ import annotations

import torch

from rdmdc.models import running
from rdmdc.models.network import Network, Weights


def step(
    network: Network,
    weights: Weights,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    rate: float,
    chunk: int,
) -> Weights:
    """Weights after a step of plain SGD on inputs (n, C, H, W)."""
    trainable = {name: value.detach().requires_grad_() for name, value in weights.items()}
    logits = running.logits(network, trainable, inputs, chunk)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(
        loss, list(trainable.values()), materialize_grads=True
    )  # zeros for biases that a norm takes away
    return {
        name: value.detach() - rate * gradient
        for (name, value), gradient in zip(trainable.items(), gradients, strict=True)
    }
