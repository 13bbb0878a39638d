"""Draw, or look up, one target in the test split."""

from __future__ import annotations

import argparse

from rdmdc.datasets import targets
from rdmdc.storage.images import load_images, save_target
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"test": "one", "target": "one"}


def run(args: argparse.Namespace) -> None:
    """Draw, or look up, one target in the test split."""
    provenance = begin(args, [args.test])
    test = load_images(args.test, expect(args, "dataset"))
    wanted = args.options["target"]
    chosen = targets.draw(test, **wanted) if len(wanted) == 1 else targets.listed(test, **wanted)
    save_target(args.target, chosen, provenance)
