"""Tables as HTML pages: single files that need no network; a click on a heading sorts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import pandas as pd

PARTS = files("rdmdc.reporting")


def page(title: str, table: pd.DataFrame, paragraphs: Sequence[str]) -> str:
    """A page with a table of texts, then the paragraphs; everything is escaped."""
    # pandas' own formatters cut long texts and escape line breaks
    as_they_are = dict.fromkeys(table.columns, str)
    body = table.to_html(index=False, border=0, justify="unset", formatters=as_they_are)
    paragraphs = [f"<p>{escape(text)}</p>" for text in paragraphs]
    return document(title, [f'<div class="table">{body}</div>', *paragraphs])


def document(title: str, body: Sequence[str], style: str = "") -> str:
    """An HTML document: its title, then the body's parts, which are HTML; ``style`` is more CSS."""
    own, script = ((PARTS / name).read_text() for name in ("page.css", "sort.js"))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            f'<meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>\n{own}{style}</style>",
            f"<h1>{escape(title)}</h1>",
            *body,
            f"<script>\n{script}</script>",
            "</html>",
            "",
        ]
    )
