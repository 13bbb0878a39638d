"""The targets (the paper's Figure 2)."""

from __future__ import annotations

import argparse

from rdmdc.reporting import image_figures
from rdmdc.storage.images import load_images, load_target
from rdmdc.storage.provenance import Provenance
from rdmdc.workflow.stages import drawing

PATHS = {"test": "one", "targets": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """The targets (the paper's Figure 2)."""
    provenance = Provenance.begin(args.stage, args.options, args.code, [args.test, *args.targets])
    test = load_images(args.test)
    chosen = [load_target(path, split=test) for path in args.targets]
    drawing.save(args, provenance, image_figures.targets(chosen, test.class_names))
