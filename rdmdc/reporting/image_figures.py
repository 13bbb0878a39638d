"""Figures of images: targets (the paper's Figure 2), poisons, and condensed sets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rdmdc.records import LabelledImages, PoisonSet, SyntheticSet, Target
from rdmdc.reporting.figures import STYLE, FigureError, label_of, laid_out

GREY = 127.5


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
    return laid_out(figure)


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
        + (f"class {label_of(classes[0])}" if single else "of several classes")
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
        axes.set_title(f"no. {index}" if single else f"no. {index}\n{label_of(name, 18)}")
    return laid_out(figure)


@mpl.rc_context(STYLE)
def synthetic(
    sets: Mapping[str, SyntheticSet], per_class: int = 3, most_classes: int = 12
) -> Figure:
    """A panel per method: a row per class, ``per_class`` synthetic images across.

    If there are more than ``most_classes`` classes, that many evenly spaced ones are drawn, and the
    figure says so. Raises FigureError where the sets differ in their classes.
    """
    if not sets:
        raise FigureError("no condensed sets to draw; name methods in the config")
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
        axes.set_title(label_of(label, 16))
    centres = (np.arange(len(classes)) + 0.5) * mosaic.shape[0] / len(classes) - 0.5
    for axes in grid[:, 0]:
        axes.set_yticks(centres, [label_of(names[c], 12) for c in classes], fontsize=8)
        axes.tick_params(length=0)
    if len(classes) < len(names):
        figure.supxlabel(f"{len(classes)} of {len(names)} classes", fontsize=8)
    return laid_out(figure)


def _mosaic(condensed: SyntheticSet, classes: Iterable[int], per_class: int) -> NDArray[Any]:
    """One picture of the set's images, a class a row, with grey lines between them."""
    images = condensed.normalisation.images(condensed.inputs)
    rows = []
    for c in classes:
        chosen = images[condensed.labels == c][:per_class]
        framed = torch.nn.functional.pad(chosen, (1, 1, 1, 1), value=0.8)
        rows.append(np.concatenate([_picture(image) for image in framed], axis=1))
    return np.concatenate(rows, axis=0)


def _show(axes: Axes, picture: NDArray[Any]) -> None:
    """Draw a picture without ticks and with square pixels; the frame shows where white ends."""
    axes.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.7", linewidth=0.5)


def _picture(image: Tensor) -> NDArray[Any]:
    """(H, W, 3) in [0, 1] of an image (C, H, W) of one or three channels, clipped."""
    colour = image.clamp(0, 1).expand(3, -1, -1)
    return np.ascontiguousarray(colour.permute(1, 2, 0).numpy())


def _misreading(target: Target, class_names: Sequence[str]) -> str:
    true, adversarial = class_names[target.true_label], class_names[target.adversarial_label]
    return f"{label_of(true, 18)}\n{label_of('→ ' + adversarial, 18)}"
