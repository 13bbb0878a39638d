"""Decode the data set once into class-sorted, memory-mapped arrays."""

from __future__ import annotations

import argparse
from pathlib import Path

from rdmdc import plugins
from rdmdc.datasets.preparing import prepare
from rdmdc.options import build, fields
from rdmdc.workflow.stages.job import begin

PATHS = {"train": "one", "test": "one"}


def run(args: argparse.Namespace) -> None:
    """Decode the data set once into class-sorted, memory-mapped arrays."""
    dataset = args.options["dataset"]
    source = plugins.get("source", dataset["source"], "dataset.source")
    own = {key: value for key, value in dataset.items() if key in fields(source.options)}
    files = [Path(name) for name in source.facts["files"](build(source.options, own, "dataset"))]
    provenance = begin(args, [path for path in files if path.is_file()])
    prepare(dataset, args.train, args.test, provenance)
