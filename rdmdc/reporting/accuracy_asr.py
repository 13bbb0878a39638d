"""The figure of test accuracy against attack success rate (ASR), a point for each method."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdmdc.reporting.figures import STYLE, FigureError, label_of, laid_out

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#661100", "#8400CD", "#004488", "#B15928"),
)
"""Okabe and Ito's seven (https://jfly.uni-koeln.de/color/), then five chosen to stay apart from
these and from each other for readers with any of the three kinds of colour blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")


@mpl.rc_context(STYLE)
def accuracy_asr(table: pd.DataFrame) -> Figure:
    """Accuracy against ASR per method from a table of ``tables.table``, one panel per attack.

    A filled marker is a method under attack, with ± of accuracy and the 95 % interval of targets
    hit. A thin line leads to its hollow marker: the same method without poison. Up to twelve
    methods differ in colour and in marker.
    """
    if table.empty:
        raise FigureError("the table has no rows to draw")
    facets = list(table.groupby(_facet(table), sort=False))
    methods = list(dict.fromkeys(table["label"]))
    looks: dict[str, dict[str, Any]] = {
        method: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, method in enumerate(methods)
    }
    across = min(len(facets), 3)
    down = math.ceil(len(facets) / across)
    width, columns = (5.5, 3) if across == 1 else (3.3 * across, across + 1)
    height = 3.3 * down + 0.2 * math.ceil((len(methods) + 2) / columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(facets) :]:
        axes.set_axis_off()
    for (title, rows), axes in zip(facets, grid.flat, strict=False):
        for row in rows.to_dict("records"):
            _plot(axes, row, looks[row["label"]])
        axes.set(title=label_of(str(title)), ylim=(-6, 106), yticks=range(0, 101, 20))
        axes.set_xlabel("test accuracy, %")
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("attack success rate (ASR), %")
    figure.legend(
        handles=[
            *(Line2D([], [], linestyle="", label=label_of(m), **looks[m]) for m in methods),
            Line2D([], [], linestyle="", marker="o", color="0.4", label="poisoned (95 % interval)"),
            Line2D([], [], linestyle="", marker="o", color="0.4", mfc="white", label="clean"),
        ],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    return laid_out(figure)


def _facet(table: pd.DataFrame) -> list[str]:
    """Each row's panel: attack and eps, and the architecture where there are several."""
    several = table["architecture"].nunique() > 1
    return [
        attack
        + ("" if pd.isna(eps) else f", eps {int(eps)}/255")
        + (f", {architecture}" if several else "")
        for attack, eps, architecture in zip(
            table["attack"], table["eps"], table["architecture"], strict=True
        )
    ]


def _plot(axes: Axes, row: Mapping[Any, Any], look: Mapping[str, Any]) -> None:
    """Draw a method. The interval counts targets hit, so its bar may miss the mean over cells."""
    x, y = row["accuracy_mean"], row["asr_mean"]
    low, high = row["asr_low"], row["asr_high"]
    bars: dict[str, Any] = {
        "fmt": "none",
        "ecolor": look["color"],
        "elinewidth": 1,
        "capsize": 2.5,
        "alpha": 0.7,
    }
    clean = (row["clean_accuracy_mean"], row["clean_asr_mean"])
    axes.plot([clean[0], x], [clean[1], y], color=look["color"], linewidth=0.7, linestyle=":")
    axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, **bars)
    axes.errorbar(x, y, xerr=row["accuracy_std"], **bars)
    axes.plot(*clean, linestyle="", markerfacecolor="white", markersize=6, zorder=3, **look)
    axes.plot(x, y, linestyle="", markersize=6.5, zorder=4, **look)
