"""Features of a network trained on the delivered images, which several published screens use."""

from __future__ import annotations

import torch

from rdmdc.checkpoints import Checkpoints
from rdmdc.models import running
from rdmdc.models.training import Schedule, fit
from rdmdc.progress import OnStep
from rdmdc.screens.screening import Suspects

BLOCK = 1024  # images normalised at once


def trained_features(
    suspects: Suspects,
    training: Schedule,
    progress: OnStep,
    checkpoints: Checkpoints,
    draws: str = "trained_features",
) -> torch.Tensor:
    """Embeddings (N, D) of all training images by a network trained on them, on the CPU.

    draws: the name of training's random draws; screens that give the same one train the same
    network.
    """
    images, device = suspects.images, suspects.device

    def inputs_of(chosen: torch.Tensor) -> torch.Tensor:
        return images.normalisation.normalise(images.pixels(chosen).to(device))

    labels = images.labels.to(device)
    purpose = (suspects.seed, "screen", draws)
    weights = fit(suspects.network, inputs_of, labels, training, purpose, progress, checkpoints)
    parts = torch.arange(len(labels)).split(BLOCK)
    embedded = [running.embed_all(suspects.network, weights, inputs_of(p)).cpu() for p in parts]
    return torch.cat(embedded)
