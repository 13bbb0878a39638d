"""Screen the training set of one case: which images look poisoned and are left out."""

from __future__ import annotations

import argparse

import torch

from rdmdc.progress import Progress
from rdmdc.screens.screening import Suspects
from rdmdc.storage.images import load_images, load_poisons
from rdmdc.storage.screenings import save_screening
from rdmdc.training_data import TrainingData
from rdmdc.workflow.stages.computing import checkpoints, network_of, plugin_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"train": "one", "poisons": "any", "screening": "one"}


def run(args: argparse.Namespace) -> None:
    """Screen the training set of one case."""
    provenance = begin(args, [args.train, *args.poisons])
    options = args.options
    train = load_images(args.train, expect(args, "dataset"))
    expected = expect(args, "dataset", "network", "seed")
    poisons = [load_poisons(path, expected, train) for path in args.poisons]
    images = TrainingData(train, poisons[0] if poisons else None)
    screen, own = plugin_of("screen", options["screen"])
    suspects = Suspects(
        images,
        images.poisoned(torch.arange(len(train.labels))),
        network_of(args, train),
        tuple(options["augmentation"]),
        options["seed"],
        options["device"],
    )
    with checkpoints(args, provenance, args.screening) as saved:
        screening = screen(suspects, own, Progress(screen.name), saved)
        screening.check(train)
        save_screening(args.screening, screening, train.labels, provenance)
