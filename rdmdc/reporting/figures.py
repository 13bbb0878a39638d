"""Figures: targets (the paper's Figure 2), poisons, synthetic sets, accuracy against ASR.

Each function returns a ``matplotlib.figure.Figure`` and touches neither files nor pyplot's state;
``rendered`` turns one into the bytes of a PNG or SVG, the same bytes for the same figure. Colours
are Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart by the marker's shape as well.
"""

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from rdmdc.errors import InputError
from rdmdc.records import LabelledImages, PoisonSet, SyntheticSet, Target

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
GREY = 127.5
SAVE_METADATA: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "svg.hashsalt": "rdmdc",
    "svg.fonttype": "path",
}


class FigureError(InputError):
    """There is nothing to draw; the message says what is missing."""


def rendered(figure: Figure, form: str, dpi: int) -> bytes:
    """The figure as the bytes of a file, ``form`` "png" or "svg", without date or version."""
    if form not in SAVE_METADATA:
        raise FigureError(f"no figures in the format {form}; choose {' or '.join(SAVE_METADATA)}")
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format=form, dpi=dpi, metadata=SAVE_METADATA[form])
    return file.getvalue()


@mpl.rc_context(STYLE)
def targets(targets: Sequence[Target], class_names: Sequence[str]) -> Figure:
    """Figure 2: the target images with seed and "true → adversarial" class, five a row."""
    if not targets:
        raise FigureError("no targets to draw; list target seeds in the config")
    across = min(len(targets), 5)
    down = math.ceil(len(targets) / across)
    figure = Figure(figsize=(1.6 * across, 2.4 * down), layout="constrained")
    for axes in (grid := figure.subplots(down, across, squeeze=False)).flat[len(targets) :]:
        axes.set_axis_off()
    for target, axes in zip(targets, grid.flat, strict=False):
        _show(axes, _picture(target.pixels / 255))
        axes.set_title(f"seed {target.seed}")
        axes.set_xlabel(_misreading(target, class_names))
    return _laid_out(figure)


@mpl.rc_context(STYLE)
def poisons(
    train: LabelledImages, poisons: PoisonSet, target: Target, eps: int | None, count: int = 6
) -> Figure:
    """Up to ``count`` poisons, evenly chosen, below their originals and the amplified difference.

    The difference is drawn around grey, scaled so that ±eps (255ths) spans black to white; with
    eps None it is not scaled. The target stands at the left. Raises RecordError where the poisons
    do not fit ``train``.
    """
    poisons.check(train)
    if not len(poisons.indices):
        raise FigureError("no poisons to draw; a clean condition has none")
    shown = min(count, len(poisons.indices))
    chosen = torch.linspace(0, len(poisons.indices) - 1, shown).round().long()
    classes = [train.class_names[label] for label in poisons.labels[chosen].tolist()]
    single = len(set(poisons.labels.tolist())) == 1
    factor = 1.0 if eps is None else GREY / eps
    originals = train.pixels[poisons.indices[chosen]].float()
    changed = poisons.pixels[chosen].float()
    bound = "" if eps is None else f"\n(±{eps}/255\nfills the range)"
    rows = {
        "original": originals / 255,
        f"difference\n× {factor:.3g}{bound}": (GREY + factor * (changed - originals)) / 255,
        "poison": changed / 255,
    }
    figure = Figure(figsize=(1.25 * (shown + 1) + 1.4, 4.2), layout="constrained")
    figure.suptitle(
        f"{shown} of {len(poisons.indices)} poisons, "
        + (f"class {_label(classes[0])}" if single else "of several classes")
    )
    grid = figure.subplots(len(rows), shown + 1)
    for axes in grid[1:, 0]:
        axes.set_axis_off()
    _show(grid[0, 0], _picture(target.pixels / 255))
    grid[0, 0].set_title(f"target, seed {target.seed}")
    grid[1, 0].text(0.5, 1, _misreading(target, train.class_names), ha="center", va="top")
    for across, (label, images) in zip(grid[:, 1:], rows.items(), strict=True):
        across[0].set_ylabel(label, rotation=0, ha="right", va="center", multialignment="right")
        for axes, image in zip(across, images, strict=True):
            _show(axes, _picture(image))
    numbers = poisons.indices[chosen].tolist()
    for axes, index, name in zip(grid[0, 1:], numbers, classes, strict=True):
        axes.set_title(f"no. {index}" if single else f"no. {index}\n{_label(name, 18)}")
    return _laid_out(figure)


@mpl.rc_context(STYLE)
def synthetic(
    sets: Mapping[str, SyntheticSet], per_class: int = 3, most_classes: int = 12
) -> Figure:
    """A panel per method: a row per class, ``per_class`` synthetic images across.

    Of more than ``most_classes`` classes, so many evenly spaced ones are drawn, and the figure says
    so. The sets are of the same classes.
    """
    if not sets:
        raise FigureError("no synthetic sets to draw; name methods in the config")
    first, *others = sets.values()
    for label, other in zip(list(sets)[1:], others, strict=True):
        if other.class_names != first.class_names:
            raise FigureError(
                f"{label} has classes {other.class_names}, {next(iter(sets))} has"
                f" {first.class_names}; draw sets of one data set"
            )
    names = first.class_names
    classes = np.linspace(0, len(names) - 1, min(len(names), most_classes)).round().astype(int)
    across = min(len(sets), 6)
    down = math.ceil(len(sets) / across)
    width = 0.55 * min(per_class, first.ipc)
    figure = Figure(
        figsize=(across * (width + 0.15) + 1.1, down * (0.55 * len(classes) + 0.5) + 0.2),
        layout="constrained",
    )
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(sets) :]:
        axes.set_axis_off()
    for (label, condensed), axes in zip(sets.items(), grid.flat, strict=False):
        mosaic = _mosaic(condensed, classes.tolist(), per_class)
        _show(axes, mosaic)
        axes.set_title(_label(label, 16))
    centres = (np.arange(len(classes)) + 0.5) * mosaic.shape[0] / len(classes) - 0.5
    for axes in grid[:, 0]:
        axes.set_yticks(centres, [_label(names[c], 12) for c in classes], fontsize=8)
        axes.tick_params(length=0)
    if len(classes) < len(names):
        figure.supxlabel(f"{len(classes)} of {len(names)} classes", fontsize=8)
    return _laid_out(figure)


def _mosaic(condensed: SyntheticSet, classes: Iterable[int], per_class: int) -> NDArray[Any]:
    """One picture of the set's images, a class a row, with grey lines between them."""
    images = condensed.normalisation.images(condensed.inputs)
    rows = []
    for c in classes:
        chosen = images[condensed.labels == c][:per_class]
        framed = torch.nn.functional.pad(chosen, (1, 1, 1, 1), value=0.8)
        rows.append(np.concatenate([_picture(image) for image in framed], axis=1))
    return np.concatenate(rows, axis=0)


@mpl.rc_context(STYLE)
def accuracy_asr(table: pd.DataFrame) -> Figure:
    """Accuracy against ASR per method from a table of ``report.table``, one panel per attack.

    Filled markers with ± of accuracy and the 95 % interval of the targets hit; a thin line leads
    to the hollow marker of the same method without poison.
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
        axes.set(title=_label(str(title)), ylim=(-6, 106), yticks=range(0, 101, 20))
        axes.set_xlabel("test accuracy, %")
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("attack success rate (ASR), %")
    figure.legend(
        handles=[
            *(Line2D([], [], linestyle="", label=_label(m), **looks[m]) for m in methods),
            Line2D([], [], linestyle="", marker="o", color="0.4", label="poisoned (95 % interval)"),
            Line2D([], [], linestyle="", marker="o", color="0.4", mfc="white", label="clean"),
        ],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    return _laid_out(figure)


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
    """One method. The interval is of targets hit, so its bar need not hold the mean over cells."""
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


def _laid_out(figure: Figure) -> Figure:
    """Lay the figure out once and for all, else every drawing of it moves things a little."""
    for _ in range(2):  # the second pass knows the sizes that the first one made
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _show(axes: Axes, picture: NDArray[Any]) -> None:
    """Draw a picture without ticks, every pixel a square, framed since it may be white."""
    axes.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.7", linewidth=0.5)


def _picture(image: Tensor) -> NDArray[Any]:
    """(H, W, 3) in [0, 1] of an image (C, H, W) of one or three channels, clipped."""
    colour = image.clamp(0, 1).expand(3, -1, -1)
    return np.ascontiguousarray(colour.permute(1, 2, 0).numpy())


def _misreading(target: Target, class_names: Sequence[str]) -> str:
    true, adversarial = class_names[target.true_label], class_names[target.adversarial_label]
    return f"{_label(true, 18)}\n{_label('→ ' + adversarial, 18)}"


def _label(text: str, width: int | None = None) -> str:
    """The text in lines of at most ``width`` letters; a $ is a dollar, not mathematics."""
    lines = textwrap.fill(text, width, break_long_words=False) if width else text
    return lines.replace("$", r"\$")
