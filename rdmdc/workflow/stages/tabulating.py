"""The table of a job's scores, which pages and figures are made from."""

from __future__ import annotations

import argparse

import pandas as pd

from rdmdc.reporting import tables
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import load_all_rows


def tabulated(args: argparse.Namespace) -> tuple[Provenance, pd.DataFrame]:
    """The job's provenance, begun, and the table of its ``scores`` files by its options."""
    options = args.options
    provenance = Provenance.begin(args.stage, options, args.code, args.scores)
    scores = pd.concat(load_all_rows(args.scores, "scores"), ignore_index=True)
    return provenance, tables.table(scores, options["rows"], options["reference"])
