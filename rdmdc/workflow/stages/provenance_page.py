"""What tables and figures come from, as a page."""

from __future__ import annotations

import argparse

from rdmdc.reporting import lineage
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.writing import save_bytes

PATHS = {"artifacts": "some", "html": "one"}


def run(args: argparse.Namespace) -> None:
    """What tables and figures come from, as a page."""
    provenance = Provenance.begin(args.stage, args.options, args.code, args.artifacts)
    text = lineage.html(lineage.lineage(args.artifacts), args.options["preset"])
    save_bytes(args.html, text.encode(), provenance)
