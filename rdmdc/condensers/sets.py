"""A panel's condensed sets with their traces, as a condenser returns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from rdmdc.condensers.task import Task
from rdmdc.records import SyntheticSet

Condensed = dict[str, tuple[SyntheticSet, "pd.DataFrame"]]
"""A condensed set and its trace for each method of the panel."""


def condensed(
    task: Task,
    inputs: Mapping[str, torch.Tensor],
    traces: Mapping[str, Sequence[Mapping[str, Any]] | pd.DataFrame],
) -> Condensed:
    """Sets of inputs (C·M, C, H, W), sorted by class, and the rows of their traces, by method.

    Raises RecordError where an input is no number.
    """
    classes = len(task.data.class_names)
    return {
        name: (
            SyntheticSet(
                values.cpu(),
                torch.arange(classes).repeat_interleave(len(values) // classes),
                task.data.class_names,
                task.data.normalisation,
            ),
            pd.DataFrame(traces[name]),
        )
        for name, values in inputs.items()
    }


def same_for_all(
    task: Task, inputs: torch.Tensor, rows: Sequence[Mapping[str, Any]] = ()
) -> Condensed:
    """One set and trace for every method of the panel, where no mean is matched."""
    return condensed(task, dict.fromkeys(task.methods, inputs), dict.fromkeys(task.methods, rows))


def traced(
    number: int,
    classes: Iterable[int],
    terms: Iterable[float],
    rows: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The trace's rows of an update: each class's loss, and what poisons did to its mean."""
    return [
        {"iteration": number, "class": c, "loss": term, **row}
        for c, term, row in zip(classes, terms, rows, strict=True)
    ]
