"""Accuracy against attack success rate of a table's rows."""

from __future__ import annotations

import argparse

from rdmdc.reporting import figures, tables
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import load_rows
from rdmdc.workflow.stages import drawing

PATHS = {"scores": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """Accuracy against attack success rate of a table's rows."""
    options = args.options
    provenance = Provenance.begin(args.stage, options, args.code, args.scores)
    made = tables.table(load_rows(args.scores, "scores"), options["rows"], options["reference"])
    drawing.save(args, provenance, figures.accuracy_asr(made))
