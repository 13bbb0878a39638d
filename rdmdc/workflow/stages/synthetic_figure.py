"""The condensed sets of several methods beside each other."""

from __future__ import annotations

import argparse

from rdmdc.reporting import image_figures
from rdmdc.storage.images import load_synthetic
from rdmdc.storage.provenance import Provenance
from rdmdc.workflow.stages import drawing

PATHS = {"synthetic": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """The condensed sets of several methods beside each other."""
    provenance = Provenance.begin(args.stage, args.options, args.code, args.synthetic)
    sets = zip(args.options["labels"], args.synthetic, strict=True)
    loaded = {label: load_synthetic(path) for label, path in sets}
    drawing.save(args, provenance, image_figures.synthetic(loaded))
