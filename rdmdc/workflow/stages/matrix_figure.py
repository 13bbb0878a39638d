"""The heat map of attacks against methods of a table's rows."""

from __future__ import annotations

import argparse

import pandas as pd

from rdmdc.reporting import tables
from rdmdc.reporting.matrix import matrix
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import load_all_rows
from rdmdc.workflow.stages import drawing

PATHS = {"scores": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """The heat map of attacks against methods of a table's rows."""
    options = args.options
    provenance = Provenance.begin(args.stage, options, args.code, args.scores)
    scores = pd.concat(load_all_rows(args.scores, "scores"), ignore_index=True)
    made = tables.table(scores, options["rows"], options["reference"])
    drawing.save(args, provenance, matrix(made))
