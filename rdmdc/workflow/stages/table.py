"""Scores to a table, as CSV, as Markdown and as a page."""

from __future__ import annotations

import argparse

import pandas as pd

from rdmdc.reporting import table_texts, tables
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import load_all_rows
from rdmdc.storage.writing import save_bytes

PATHS = {"scores": "some", "csv": "one", "markdown": "one", "html": "one"}


def run(args: argparse.Namespace) -> None:
    """Scores to a table, as CSV, as Markdown and as a page."""
    options = args.options
    provenance = Provenance.begin(args.stage, options, args.code, args.scores)
    scores = pd.concat(load_all_rows(args.scores, "scores"), ignore_index=True)
    made = tables.table(scores, options["rows"], options["reference"])
    texts = {
        args.csv: table_texts.csv(made),
        args.markdown: table_texts.markdown(made, options["title"], options["note"]),
        args.html: table_texts.html(made, options["title"], options["note"]),
    }
    for path, text in texts.items():
        save_bytes(path, text.encode(), provenance)
