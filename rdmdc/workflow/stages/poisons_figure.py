"""Poisons beside their originals."""

from __future__ import annotations

import argparse

from rdmdc.reporting import image_figures
from rdmdc.storage.images import load_images, load_poisons, load_target
from rdmdc.storage.provenance import Provenance
from rdmdc.workflow.stages import drawing

PATHS = {"train": "one", "target": "one", "poisons": "one", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """Poisons beside their originals."""
    inputs = [args.train, args.target, args.poisons]
    provenance = Provenance.begin(args.stage, args.options, args.code, inputs)
    train = load_images(args.train)
    figure = image_figures.poisons(
        train,
        load_poisons(args.poisons, train=train),
        load_target(args.target, split=train),
        args.options["eps"],
    )
    drawing.save(args, provenance, figure)
