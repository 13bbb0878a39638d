"""Scores to a table, as CSV, as Markdown and as a page."""

from __future__ import annotations

import argparse

from rdmdc.reporting import table_texts
from rdmdc.storage.writing import save_bytes
from rdmdc.workflow.stages.tabulating import tabulated

PATHS = {"scores": "some", "csv": "one", "markdown": "one", "html": "one"}


def run(args: argparse.Namespace) -> None:
    """Scores to a table, as CSV, as Markdown and as a page."""
    options = args.options
    provenance, made = tabulated(args)
    texts = {
        args.csv: table_texts.csv(made),
        args.markdown: table_texts.markdown(made, options["title"], options["note"]),
        args.html: table_texts.html(made, options["title"], options["note"]),
    }
    for path, text in texts.items():
        save_bytes(path, text.encode(), provenance)
