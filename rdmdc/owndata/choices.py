"""Choices that a person with a data set need not make: a preset from what the survey found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rdmdc.errors import InputError
from rdmdc.owndata import verdicts
from rdmdc.owndata.audit import AUGMENTATION, depth
from rdmdc.owndata.reading import dataset
from rdmdc.owndata.survey import Survey

AUDIT = "contrastive_minorities"
"""The screen whose verdict is the audit's."""
METHODS: dict[str, tuple[str, str, str]] = {
    "audited_dm": ("DM on what the audit leaves", AUDIT, "mean"),
    "dm": ("DM", "none", "mean"),
    "rdm_dc": ("RDM-DC", "none", "spectral_mean"),
    "contrastive_dm": ("Contrastive mean", "none", "contrastive_mean"),
    "screened_dm": ("Screened DM", "contrastive", "mean"),
}
"""Label, screen and estimator by name; all condense by distribution matching (DM)."""
LARGEST_BATCH = 128
IMAGES = Path("images.parquet")
"""The list of the images, in the folder that the workflow runs in."""
CONTRAST = {"others": 384, "ridge": 0.1, "power_iterations": 10}


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line."""

    ipc: int
    method: str
    iterations: int
    width: int
    size: int | None
    poison_rate: str
    device: str
    seed: int


def side_of(found: Survey, request: Request) -> int:
    """The side that images are condensed at."""
    return request.size or found.size or int(found.sizes.split("×")[0])


def choices(found: Survey, request: Request) -> dict[str, Any]:
    """What is chosen, by name; raises InputError where the data leave no choice."""
    smallest = min(found.train)
    side = side_of(found, request)
    screened = METHODS[request.method][1] != "none"
    batch = min(LARGEST_BATCH, smallest // 2 if screened else smallest)
    if batch < 2:
        name = found.class_names[found.train.index(smallest)]
        raise InputError(
            f"class {name!r} has {smallest} training images, too few to condense; add some or"
            " remove it"
        )
    return {
        "side": side,
        "depth": depth(side),
        "width": request.width,
        "batch": batch,
        "learning_rate": 64 * request.ipc / request.width,
        "threads": min(8, os.cpu_count() or 1),
    }


def told(found: Survey, request: Request, chosen: Mapping[str, Any]) -> list[str]:
    """Each choice with its reason, a line each."""
    label, screen, estimator = METHODS[request.method]
    side, smallest = chosen["side"], min(found.train)
    return [
        f"images: {sum(found.train)} to train of {len(found.class_names)} classes,"
        f" {sum(found.test)} to test ({found.test_from}); they are {found.sizes}",
        f"size: {side} pixels"
        + ("" if request.size or found.size is None else " (larger or uneven images are scaled)"),
        f"colour: {found.color}",
        f"method: {request.method} ({label}: screen {screen}, estimator {estimator})",
        f"network: ConvNet of width {chosen['width']} and depth {chosen['depth']}, which halves"
        f" {side} pixels to {side >> chosen['depth']}",
        f"batch: {chosen['batch']} images of a class (at most {LARGEST_BATCH}; the smallest class"
        f" has {smallest})",
        f"learning rate: {chosen['learning_rate']:g} (64 · ipc / width)",
        f"iterations: {request.iterations}; {request.ipc} images per class; seed {request.seed}",
    ]


def preset(found: Survey, request: Request, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A complete preset that condenses the listed images by one method, without any attack.

    It names the list by a path relative to the folder that the workflow runs in, so that no path
    of this machine is published.
    """
    label, screen, estimator = METHODS[request.method]
    rate = Fraction(request.poison_rate)
    dropping = {"drop": str(rate * 3)}
    estimators = {
        "spectral_mean": {**dropping, "power_iterations": 10},
        "contrastive_mean": {**dropping, **CONTRAST},
    }
    screens = {
        AUDIT: verdicts.SCREEN,
        "contrastive": {"drop": str(rate * 3 / 2), "networks": 16, "sample": 4096, **CONTRAST},
    }
    return {
        "preset": "own",
        "description": "Own data, condensed without any attack of ours.",
        "seed": request.seed,
        "runs": 1,
        "device": request.device,
        "threads": chosen["threads"],
        "compile": True,
        "precision": "float32",
        "checkpoint_minutes": 1,
        "cluster": {
            "train": sum(found.train),
            "test": max(1, sum(found.test)),
            "classes": len(found.class_names),
            "side": chosen["side"],
            "memory_mb": 2000,
            "gflops": 10,
        },
        "dataset": dataset(IMAGES, request.size or found.size, found.color),
        "networks": {"convnet": {"width": chosen["width"], "depth": chosen["depth"]}},
        "network": "convnet",
        "augmentation": list(AUGMENTATION),
        "screens": {
            name: dict(screens[name]) for name in dict.fromkeys((AUDIT, screen)) if name != "none"
        },
        "condensers": {
            "dm": {
                "ipc": request.ipc,
                "batch": chosen["batch"],
                "iterations": request.iterations,
                "learning_rate": float(chosen["learning_rate"]),
                "momentum": 0.5,
                "initialisation": "noise",
                "log_every": max(1, request.iterations // 10),
            }
        },
        "estimators": {name: own for name, own in estimators.items() if name == estimator},
        "methods": {
            request.method: {
                "label": label,
                "screen": screen,
                "condenser": "dm",
                "estimator": estimator,
            }
        },
        "panels": {"own": [request.method]},
        "conditions": {"own": {"label": "None", "attack": "none", "panels": ["own"]}},
        "evaluate": EVALUATE,
    }


EVALUATE: dict[str, Any] = {
    "networks": {"convnet": 3},
    "epochs": 150,
    "batch": 256,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5.0e-4,
    "decay_after": "1/2",
    "augmentation": list(AUGMENTATION),
}
"""How networks are trained on the condensed set to measure its accuracy."""
