"""Scores become tables: one row per method and attack, with the clean columns beside them.

A cell is (condition, target, run, method, architecture); its value is the fraction of its
evaluation networks that are fooled. The paper's ± is the population standard deviation over cells
(§5.1: 60 % of 25 cells is 60 ± 48.99). Runs of one target are not independent, so the interval and
the paired test count targets: a target is hit when the mean value of its cells exceeds ½.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from rdmdc.errors import InputError

KEY = ["condition", "target", "run", "method", "architecture", "network"]
LABELS = ["true_label", "adversarial_label"]
NUMBERS = ["adversarial_probability", "true_probability", "margin", "accuracy"]
PERCENTAGES = [
    f"{clean}{name}"
    for clean in ("", "clean_")
    for name in ("accuracy_mean", "accuracy_std", "asr_mean", "asr_std", "asr_low", "asr_high")
]
COUNTS = ["targets_hit", "clean_targets_hit", "hit_by_dm_only", "hit_by_this_only"]
COLUMNS = [
    *("condition", "method", "label", "architecture", "attack", "eps"),
    *(*PERCENTAGES[:6], "targets_hit", *PERCENTAGES[6:], "clean_targets_hit"),
    *("margin", "clean_margin", "p_vs_dm", "hit_by_dm_only", "hit_by_this_only"),
    *("targets", "runs", "networks"),
]


class ReportError(InputError):
    """Scores and the table's rows do not fit; the message names what is missing and a remedy."""


def table(scores: pd.DataFrame, rows: Sequence[Mapping[str, Any]], reference: str) -> pd.DataFrame:
    """One row of ``COLUMNS`` per entry of ``rows``; percentages are in 0..100, not rounded.

    ``scores`` has one row per condition, run, method, architecture, network and target. An entry
    names its ``condition``, ``clean`` condition, ``method`` and the ``architecture`` that evaluates
    it, and prints as ``label``, ``attack``, ``eps`` (255ths, None for a direct attack).
    ``reference`` is the method plain DM; a row is tested against it where its condition holds it.
    Raises ReportError where a cell or a network is missing, doubled or contradicts another.
    """
    if not rows:
        raise ReportError("the table has no rows; list its methods and attacks in its entry")
    _check(scores)
    ordered = scores.sort_values(KEY).assign(
        fooled=lambda frame: frame["predicted_label"] == frame["adversarial_label"]
    )
    result = pd.DataFrame([_row(ordered, row, reference) for row in rows], columns=COLUMNS)
    return result.astype(dict.fromkeys(["eps", *COUNTS], "Int64"))


def _check(scores: pd.DataFrame) -> None:
    wanted = [*KEY, *LABELS, "predicted_label", *NUMBERS]
    missing = [name for name in wanted if name not in scores.columns]
    if missing:
        raise ReportError(f"scores lack the columns {', '.join(missing)}; evaluate again")
    for name in wanted:
        column = scores[name]
        bad = ~np.isfinite(column) if name in NUMBERS else column.isna()
        if name == "accuracy":
            bad |= (column < 0) | (column > 1)
        if bad.any():
            raise ReportError(
                f"{name} is {column[bad].iloc[0]} for {_named(scores[bad].iloc[0])};"
                " evaluate that cell again"
            )
    doubled = scores.duplicated(KEY)
    if doubled.any():
        raise ReportError(
            f"{_named(scores[doubled].iloc[0])} is scored more than once"
            f" ({int(doubled.sum())} rows too many); pass each score file once"
        )


def _named(row: pd.Series[Any]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in KEY)


def _row(scores: pd.DataFrame, row: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """One row of the table, as a mapping of ``COLUMNS``."""
    absent = {"condition", "clean", "method", "label", "architecture", "attack", "eps"} - set(row)
    if absent:
        raise ReportError(
            f"a row of the table lacks {', '.join(sorted(absent))}: {dict(row)};"
            " name them in the table's entry"
        )
    condition, method = row["condition"], row["method"]
    found = scores["architecture"].unique()
    scores = scores[scores["architecture"] == row["architecture"]]
    if scores.empty and len(found):
        raise ReportError(
            f"no scores by architecture {row['architecture']}; there are scores by"
            f" {', '.join(sorted(found))}: evaluate with it, or mend the table's entry"
        )
    grid = _grid(scores, condition, row["clean"])
    cells = _cells(scores, condition, method, grid)
    clean = _cells(scores, row["clean"], method, grid)
    clean_accuracy = 100 * clean["accuracy"].groupby("run").mean()
    targets, runs, networks = (len(values) for values in grid)
    result = {
        **{
            name: row[name]
            for name in ("condition", "method", "label", "architecture", "attack", "eps")
        },
        "accuracy_mean": 100 * cells["accuracy"].mean(),
        "accuracy_std": 100 * cells["accuracy"].std(ddof=0),
        **_success(cells, ""),
        "clean_accuracy_mean": clean_accuracy.mean(),
        "clean_accuracy_std": clean_accuracy.std(ddof=0),
        **_success(clean, "clean_"),
        "margin": cells["margin"].mean(),
        "clean_margin": clean["margin"].mean(),
        "targets": targets,
        "runs": runs,
        "networks": networks,
    }
    held = scores.loc[scores["condition"] == condition, "method"]
    if method != reference and (held == reference).any():
        result |= _against(_cells(scores, condition, reference, grid), cells)
    return result


def _grid(scores: pd.DataFrame, condition: str, clean: str) -> tuple[list[int], ...]:
    """The targets of the condition, the runs and networks of it and of its clean condition."""
    for name in (condition, clean):
        if not (scores["condition"] == name).any():
            raise ReportError(
                f"no scores of condition {name}; there are scores of"
                f" {', '.join(sorted(scores['condition'].unique())) or 'none'}:"
                " evaluate it, or mend the table's entry"
            )
    targets = sorted(scores.loc[scores["condition"] == condition, "target"].unique().tolist())
    both = scores[scores["condition"].isin([condition, clean]) & scores["target"].isin(targets)]
    for target, of_target in both.groupby("target"):
        pairs = of_target[LABELS].drop_duplicates().to_numpy().tolist()
        if len(pairs) > 1:
            raise ReportError(
                f"target {target} has several pairs of true and adversarial label in"
                f" {condition} and {clean}: {pairs}; evaluate both with the same targets"
            )
    runs, networks = (sorted(both[name].unique().tolist()) for name in ("run", "network"))
    return targets, runs, networks


def _cells(
    scores: pd.DataFrame, condition: str, method: str, grid: tuple[list[int], ...]
) -> pd.DataFrame:
    """Per (target, run): the count of fooled networks, of networks, mean accuracy and margin."""
    targets, runs, networks = grid
    here = scores[scores["condition"] == condition]
    mine = here[here["method"] == method]
    if mine.empty:
        raise ReportError(
            f"no scores of method {method} in condition {condition} (it holds"
            f" {', '.join(sorted(here['method'].unique()))}): evaluate it, or mend the"
            " table's entry"
        )
    mine = mine[mine["target"].isin(targets)]
    found = {cell: set(rows["network"]) for cell, rows in mine.groupby(["target", "run"])}
    wanted = [(target, run) for target in targets for run in runs]
    faulty = [cell for cell in wanted if found.get(cell, set()) != set(networks)]
    if faulty:
        target, run = faulty[0]
        seen = sorted(found.get(faulty[0], set()))
        raise ReportError(
            f"condition {condition}, target {target}, run {run}, method {method}"
            + (f" has networks {seen} of {networks}" if seen else " has no scores")
            + f" ({len(faulty)} of {len(wanted)} cells are incomplete);"
            " evaluate again: a table needs all of its cells, attacked and clean"
        )
    return mine.groupby(["target", "run"]).agg(
        fooled=("fooled", "sum"),
        networks=("fooled", "size"),
        accuracy=("accuracy", "mean"),
        margin=("margin", "mean"),
    )


def _hits(cells: pd.DataFrame) -> pd.Series[bool]:
    """True for each target that is hit; whole numbers are compared, since ½ must be exact."""
    sums = cells[["fooled", "networks"]].groupby("target").sum()
    return 2 * sums["fooled"] > sums["networks"]


def _success(cells: pd.DataFrame, prefix: str) -> dict[str, Any]:
    """ASR over cells, targets hit, and the exact interval over targets."""
    asr = 100 * cells["fooled"] / cells["networks"]
    hits = _hits(cells)
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "exact")
    return {
        f"{prefix}asr_mean": asr.mean(),
        f"{prefix}asr_std": asr.std(ddof=0),
        f"{prefix}asr_low": 100 * float(interval.low),
        f"{prefix}asr_high": 100 * float(interval.high),
        f"{prefix}targets_hit": int(hits.sum()),
    }


def _against(plain: pd.DataFrame, cells: pd.DataFrame) -> dict[str, Any]:
    """Exact McNemar test: of equal methods, either is as likely to be the only one that is hit."""
    theirs, ours = _hits(plain), _hits(cells)
    lost, won = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    p = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    return {"p_vs_dm": p, "hit_by_dm_only": lost, "hit_by_this_only": won}
