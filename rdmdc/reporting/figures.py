"""What all figures share: their style, their layout, and how one becomes the bytes of a file.

A figure is a ``matplotlib.figure.Figure``, made without files or pyplot's state; ``rendered`` turns
one into a PNG or SVG, the same bytes for the same figure.
"""

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rdmdc.errors import InputError

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


def laid_out(figure: Figure) -> Figure:
    """Fix the layout of a figure: otherwise every drawing of it moves things a little."""
    for _ in range(2):  # the second pass knows the sizes that the first one made
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def label_of(text: str, width: int | None = None) -> str:
    """The text in lines of at most ``width`` letters; a $ is a dollar, not mathematics."""
    lines = textwrap.fill(text, width, break_long_words=False) if width else text
    return lines.replace("$", r"\$")
