"""The heat map of attacks against methods of a table's rows."""

from __future__ import annotations

import argparse

from rdmdc.reporting.matrix import matrix
from rdmdc.workflow.stages import drawing
from rdmdc.workflow.stages.tabulating import tabulated

PATHS = {"scores": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """The heat map of attacks against methods of a table's rows."""
    provenance, made = tabulated(args)
    drawing.save(args, provenance, matrix(made))
