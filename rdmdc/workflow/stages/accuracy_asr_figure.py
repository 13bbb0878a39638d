"""Accuracy against attack success rate of a table's rows."""

from __future__ import annotations

import argparse

from rdmdc.reporting.accuracy_asr import accuracy_asr
from rdmdc.workflow.stages import drawing
from rdmdc.workflow.stages.tabulating import tabulated

PATHS = {"scores": "some", **drawing.PATHS}


def run(args: argparse.Namespace) -> None:
    """Accuracy against attack success rate of a table's rows."""
    provenance, made = tabulated(args)
    drawing.save(args, provenance, accuracy_asr(made))
