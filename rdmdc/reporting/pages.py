"""Tables as HTML pages: one file each, that sorts by a click and wants no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

PARTS = files("rdmdc.reporting") / "page"


@dataclass(frozen=True)
class Cell:
    """What a cell shows and, where that does not sort by itself, the number that sorts it."""

    text: str
    number: float | None = None


def page(title: str, rows: Sequence[Mapping[str, Cell]], paragraphs: Sequence[str]) -> str:
    """A page with the rows, all of the first one's columns, then the paragraphs."""
    style, script = ((PARTS / name).read_text() for name in ("page.css", "sort.js"))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            f'<meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>\n{style}</style>",
            f"<h1>{escape(title)}</h1>",
            '<div class="table"><table>',
            f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in rows[0])}</tr></thead>",
            "<tbody>",
            *(f"<tr>{''.join(_cell(cell) for cell in row.values())}</tr>" for row in rows),
            "</tbody></table></div>",
            *(f"<p>{escape(text)}</p>" for text in paragraphs),
            f"<script>\n{script}</script>",
            "</html>",
            "",
        ]
    )


def _cell(cell: Cell) -> str:
    order = "" if cell.number is None else f' data-sort="{cell.number}"'
    return f"<td{order}>{escape(cell.text)}</td>"
