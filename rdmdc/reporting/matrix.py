"""The heat map of attacks against methods: attack success rate (ASR) above its clean value."""

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from rdmdc.reporting.figures import STYLE, FigureError, label_of, laid_out

LIMIT = 100  # percentage points at which the colours end


@mpl.rc_context(STYLE)
def matrix(table: pd.DataFrame) -> Figure:
    """Attacks down, methods across, from a table of ``tables.table``; one panel per architecture.

    A field's colour is ASR minus clean ASR in percentage points. It says ASR / clean ASR, and
    below them accuracy, all in percent. Fields that the table does not have stay empty.
    """
    if table.empty:
        raise FigureError("the table has no rows to draw")
    attacks = list(dict.fromkeys(_attack(row) for row in table.to_dict("records")))
    methods = list(dict.fromkeys(table["label"]))
    panels = list(table.groupby("architecture", sort=False))
    width, height = 2.2 + 0.85 * len(methods), max(2.4, 0.9 + 0.42 * len(attacks))
    figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False)
    for (architecture, rows), axes in zip(panels, grid[:, 0], strict=True):
        fields = pd.DataFrame(float("nan"), index=attacks, columns=methods)
        for row in rows.to_dict("records"):
            attack, method = _attack(row), row["label"]
            above = row["asr_mean"] - row["clean_asr_mean"]
            fields.loc[attack, method] = above
            axes.text(
                methods.index(method),
                attacks.index(attack),
                f"{row['asr_mean']:.0f} / {row['clean_asr_mean']:.0f}\n{row['accuracy_mean']:.1f}",
                ha="center",
                va="center",
                color="white" if abs(above) > 0.6 * LIMIT else "black",
            )
        image = axes.imshow(fields, cmap="RdBu_r", vmin=-LIMIT, vmax=LIMIT, aspect="auto")
        axes.set_xticks(range(len(methods)), [label_of(m, 12) for m in methods])
        axes.set_yticks(range(len(attacks)), [label_of(a) for a in attacks])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(panels) > 1:
            axes.set_title(label_of(str(architecture)))
        figure.colorbar(image, ax=axes, label="ASR minus clean ASR", fraction=0.05)
    return laid_out(figure)


def _attack(row: dict[Any, Any]) -> str:
    return f"{row['attack']}" + ("" if pd.isna(row["eps"]) else f", {int(row['eps'])}/255")
