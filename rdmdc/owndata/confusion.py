"""The confusion matrix of a network: in words, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from rdmdc.reporting.figures import rendered

TABLE, FIGURE = "confusion.csv", "confusion.png"
PRINTED = 12  # most classes whose matrix fits a terminal
MISTAKES = 10
DPI = 150


def matrix(labels: torch.Tensor, predicted: torch.Tensor, classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are the true labels (N,), columns the predicted ones (N,)."""
    return (
        torch.bincount(labels * classes + predicted, minlength=classes**2)
        .view(classes, classes)
        .numpy()
    )


def told(counts: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """Accuracy, then the matrix, or of many classes the commonest mistakes."""
    right, total = int(np.trace(counts)), int(counts.sum())
    yield f"accuracy: {right / total:.1%} ({right} of {total} real images; one network)"
    if len(names) <= PRINTED:
        yield "true class (rows) and what the network says (columns):"
        width = max(map(len, names))
        yield " " * (width + 4) + "".join(f"{number:>6}" for number in range(len(names)))
        for number, name in enumerate(names):
            row = "".join(f"{count:>6}" for count in counts[number])
            yield f"{number:>3} {name:<{width}}{row}"
        return
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    yield "the commonest mistakes:"
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES]:
        true, said = divmod(int(place), len(names))
        if wrong[true, said]:
            own = counts[true].sum()
            yield f"  {wrong[true, said]} of {own} of {names[true]!r} are taken for {names[said]!r}"


def write(folder: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """The matrix as CSV, a row for each true class, and as PNG."""
    pd.DataFrame(counts, pd.Index(names, name="true class"), pd.Index(names)).to_csv(folder / TABLE)
    (folder / FIGURE).write_bytes(rendered(figure(counts, names), "png", DPI))


def figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Shares of each true class as shades, and where they fit the counts as numbers."""
    classes = len(names)
    side = min(12.0, 2.2 + 0.45 * classes)
    drawn = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = drawn.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    drawn.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="what the network says", ylabel="true class")
    if classes <= 2 * PRINTED:
        axes.set_xticks(range(classes), list(names), rotation=60, ha="right")
        axes.set_yticks(range(classes), list(names))
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", size=7, color=colour)
    return drawn
