"""Weights of networks on disk: float32, finite, and those of the network that asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from rdmdc.errors import ArtifactError
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import reading
from rdmdc.storage.tensors import Tensors, load, save


class Checks(Protocol):
    """What a network must do for its weights to be checked."""

    def check(self, weights: Tensors) -> None:
        """Raise an InputError unless names and shapes are the network's."""


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], provenance: Provenance) -> None:
    """Save a network's weights; ArtifactError where they are not finite."""
    _check_finite(path, weights)
    save(path, "weights", weights, provenance)


def load_weights(
    path: Path, expect: Mapping[str, Any] | None = None, network: Checks | None = None
) -> Tensors:
    """Weights, finite float32; ArtifactError where the file has others, or not the network's."""
    with reading(path):
        tensors, _ = load(path, "weights", expect)
        for name, value in tensors.items():
            if value.dtype != torch.float32:
                raise ValueError(f"{name} is {value.dtype}, not float32")
        weights = {name: value.clone() for name, value in tensors.items()}
        if network is not None:
            network.check(weights)
    _check_finite(path, weights)
    return weights


def _check_finite(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(
                f"{path}: {name} holds NaN or infinity; lower pretrain.learning_rate and run"
                " snakemake again"
            )
