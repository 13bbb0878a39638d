"""Saving a figure as PNG and SVG."""

from __future__ import annotations

import argparse

from matplotlib.figure import Figure

from rdmdc.reporting import figures
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.writing import save_bytes

DPI = 200  # of PNG figures
PATHS = {"png": "one", "svg": "one"}


def save(args: argparse.Namespace, provenance: Provenance, figure: Figure) -> None:
    """Save a figure in both forms."""
    for form, path in (("png", args.png), ("svg", args.svg)):
        save_bytes(path, figures.rendered(figure, form, DPI), provenance)
