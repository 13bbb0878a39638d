"""Tables as CSV, as Markdown and as HTML pages: what people read of the rows of `tables.table`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rdmdc.reporting.pages import page
from rdmdc.reporting.tables import PERCENTAGES

EXPLANATION = """\
Accuracy and ASR are percentages: mean ± population standard deviation over cells (target × run; a
cell's ASR is the share of its networks that are fooled). A target is hit when its mean ASR over
runs exceeds ½; [low, high] is the exact (Clopper–Pearson) 95 % interval of the share of targets
hit. The clean columns are the same method, targets and labels without poison: what it misreads by
itself; the ± of the clean accuracy is over runs. All methods and targets share each
run's draws: with one run, ± tells how poisons differ, not how runs do. Margin: adversarial
probability minus the largest other one, in brackets without poison. p: exact McNemar test over
targets against plain DM under the same attack, in brackets the targets hit under DM only / under
this method only."""


def csv(table: pd.DataFrame) -> str:
    """The table as CSV: percentages with two decimals, margins and p with four digits."""
    formats = {name: "{:.2f}" for name in PERCENTAGES}
    formats |= {"margin": "{:.4f}", "clean_margin": "{:.4f}", "p_vs_dm": "{:.4g}"}
    texts = {
        name: ["" if pd.isna(value) else form.format(value) for value in table[name]]
        for name, form in formats.items()
    }
    return table.assign(**texts).to_csv(index=False, lineterminator="\n")


def markdown(table: pd.DataFrame, title: str, note: str) -> str:
    """The table under its title as Markdown, padded to read well in a terminal, then the notes."""
    texts = _texts(table).map(lambda text: text.replace("|", r"\|"))
    body = texts.to_markdown(index=False, disable_numparse=True)
    return "\n".join([f"# {title}", "", body, "", *([note, ""] if note else []), EXPLANATION, ""])


def html(table: pd.DataFrame, title: str, note: str) -> str:
    """The same as a page whose columns sort by the numbers that they begin with."""
    # broken into lines, so that ASR and clean ASR fit into a window side by side
    texts = _texts(table).map(lambda text: text.replace(", hit", ",\nhit").replace(" [", "\n["))
    return page(title, texts, [*([note] if note else []), EXPLANATION])


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """What people read of each row; the architecture only where there are several."""
    texts = pd.DataFrame([_composed(row) for row in table.to_dict("records")])
    return texts if table["architecture"].nunique() > 1 else texts.drop(columns="Network")


def _composed(row: Mapping[Any, Any]) -> dict[str, str]:
    """The columns that people read."""

    def asr(prefix: str) -> str:
        mean, std, low, high = (row[f"{prefix}asr_{x}"] for x in ("mean", "std", "low", "high"))
        hit = f"{row[f'{prefix}targets_hit']}/{row['targets']}"
        return f"{mean:.1f} ± {std:.1f}, hit {hit} [{low:.1f}, {high:.1f}]"

    def accuracy(prefix: str) -> str:
        return f"{row[f'{prefix}accuracy_mean']:.1f} ± {row[f'{prefix}accuracy_std']:.1f}"

    tested = not pd.isna(row["p_vs_dm"])
    p = f"{row['p_vs_dm']:.3f} ({row['hit_by_dm_only']}/{row['hit_by_this_only']})"
    return {
        "Method": row["label"],
        "Network": row["architecture"],
        "Attack": row["attack"],
        "eps": "–" if pd.isna(row["eps"]) else f"{row['eps']}/255",
        "Accuracy": accuracy(""),
        "ASR [95 %]": asr(""),
        "Clean accuracy": accuracy("clean_"),
        "Clean ASR [95 %]": asr("clean_"),
        "Margin (clean)": f"{row['margin']:+.2f} ({row['clean_margin']:+.2f})",
        "p vs DM": p if tested else "–",
        "n = targets × runs × networks": f"{row['targets']} × {row['runs']} × {row['networks']}",
    }
