"""Decode the data set once into class-sorted, memory-mapped arrays."""

from __future__ import annotations

import argparse
from pathlib import Path

from rdmdc.datasets.decoding import source_of
from rdmdc.datasets.preparing import prepare
from rdmdc.workflow.stages.job import begin

PATHS = {"train": "one", "test": "one"}


def run(args: argparse.Namespace) -> None:
    """Decode the data set once into class-sorted, memory-mapped arrays."""
    dataset = args.options["dataset"]
    source, own = source_of(dataset)
    files = [Path(name) for name in source.facts["files"](own)]
    provenance = begin(args, [path for path in files if path.is_file()])
    prepare(dataset, args.train, args.test, provenance)
