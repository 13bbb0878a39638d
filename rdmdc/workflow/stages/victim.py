"""Pretrain one victim on clean data."""

from __future__ import annotations

import argparse

from rdmdc.models.training import Schedule, pretrain
from rdmdc.options import build
from rdmdc.progress import Progress
from rdmdc.storage.images import load_images
from rdmdc.storage.weights import save_weights
from rdmdc.workflow.stages.computing import checkpoints, network_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"train": "one", "weights": "one"}


def run(args: argparse.Namespace) -> None:
    """Pretrain one victim, for attacks that need them."""
    provenance = begin(args, [args.train])
    options = args.options
    train = load_images(args.train, expect(args, "dataset"))
    network = network_of(args, train)
    schedule = build(Schedule, options["pretrain"], "pretrain")
    with checkpoints(args, provenance, args.weights) as saved:
        weights = pretrain(
            train, network, schedule, options["seed"], options["device"], Progress("victim"), saved
        )
        save_weights(args.weights, weights, provenance)
