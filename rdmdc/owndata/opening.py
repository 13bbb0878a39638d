"""Opening a condensed set: its exact values, and how the accuracies on its card were measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import yaml

from rdmdc import plugins
from rdmdc.errors import InputError
from rdmdc.models.network import Network
from rdmdc.models.training import Schedule
from rdmdc.options import build
from rdmdc.records import Normalisation, SyntheticSet
from rdmdc.storage import reading

EXACT, PRESET = "set.safetensors", "preset.yaml"


class SetError(InputError):
    """A folder is no condensed set, or is damaged; the message says which file."""


@dataclass(frozen=True)
class Evaluation:
    """The network that a set's card was measured with, how it is trained, and its own options."""

    network: Network
    schedule: Schedule
    family: str
    options: Mapping[str, Any]


def check(folder: Path) -> None:
    """Raise SetError unless the folder holds a condensed set."""
    if not (folder / EXACT).is_file():
        raise SetError(f"{folder}: no condensed set, it has no {EXACT}")


def opened(folder: Path) -> SyntheticSet:
    """The exact values of a set. Raises SetError."""
    check(folder)
    path = folder / EXACT
    with _faults(path), safetensors.safe_open(path, "pt") as file:
        said = json.loads((file.metadata() or {})["set"])
        inputs, labels = (file.get_tensor(name) for name in ("inputs", "labels"))
        normalisation = Normalisation(tuple(said["mean"]), tuple(said["std"]))
        return SyntheticSet(inputs, labels, tuple(map(str, said["class_names"])), normalisation)


def evaluation(folder: Path, made: SyntheticSet) -> Evaluation:
    """How networks are trained on a set, as its preset says. Raises SetError or an InputError."""
    path = folder / PRESET
    with _faults(path):
        preset = yaml.safe_load(reading.content(path))
        family = str(preset["network"])
        options = dict(preset["networks"][family])
        schedule = {key: value for key, value in preset["evaluate"].items() if key != "networks"}
        plugin = plugins.get("network", family, "network")
        _, channels, side, _ = made.inputs.shape
        network = plugin(
            channels, side, len(made.class_names), build(plugin.options, options, "networks")
        )
        return Evaluation(network, build(Schedule, schedule, "evaluate"), family, options)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what readers of a damaged file raise into one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged files raise nearly anything
        raise SetError(
            f"{path}: damaged, or not of a condensed set ({error}); fetch the set again"
        ) from error
