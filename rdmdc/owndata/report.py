"""The audit's report: one HTML file that needs no network."""

from __future__ import annotations

from html import escape
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from rdmdc.owndata import audit as auditing
from rdmdc.owndata import verdicts
from rdmdc.owndata.audit import Audit
from rdmdc.owndata.thumbnails import data_uri
from rdmdc.reporting.pages import document

FLAGGED, TYPICAL, CLASSES = 48, 16, 20  # most images of a class, and most classes with images
STYLE = """
body { max-width: 60rem; margin: 1rem auto; padding: 0 1rem; font-size: 15px; }
h1, h2, h3, li { overflow-wrap: anywhere; }
h2 { margin: 1.5rem 0 .25rem; font-size: 1.15rem; }
h3 { margin: .75rem 0 .25rem; font-size: 1rem; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)); gap: 4px; }
.images img { width: 100%; image-rendering: pixelated; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; }
ul { padding-left: 1.25rem; }
@media (max-width: 500px) {
  th, td { padding: .35rem .25rem; font-size: 13px; }
  thead th::after { content: none; }
}
.suspicious { color: #b91c1c; font-weight: 600; }
.verdict { font-size: 1.1rem; }
"""
MEANING = (
    "Score: every class is seen by 16 random networks in directions that other classes do not"
    " share. Poisons that pull towards one target form a small, tight group there. An image's"
    " score says how near it is to such a group (1 at the group's mean), times how far the group"
    " stands apart from the rest of its class. Where the split into group and rest explains at"
    " least"
    f" {verdicts.SCREEN['separation']:.0%} of the variance (the column separation), the group is"
    " flagged. Scores are compared within a class only.",
    "A flagged group need not be poison: many nearly equal images, such as drawings of clock faces"
    " or frames of one film, stand apart as well. So look at the images: strong poisons share a"
    " shape that does not belong to their class, under a pattern like noise; weak ones may look"
    " like any other image.",
)


def html(found: Audit) -> str:
    """The report of an audit as a page."""
    suspicious = found.classes[found.classes["verdict"] == verdicts.FOUND]
    body = [
        f'<p class="verdict">{escape(_verdict(found))}</p>',
        _table(found),
        *(f"<p>{escape(text)}</p>" for text in MEANING),
        *(_class(found, int(label)) for label in suspicious["label"][:CLASSES]),
        _equal(found),
        _left_out(found),
        "<h2>How far to trust it</h2>",
        *(f"<p>{escape(text)}</p>" for text in verdicts.MEASURED),
    ]
    return document(f"Audit of {found.data}", [part for part in body if part], STYLE)


def _verdict(found: Audit) -> str:
    counts = found.classes["verdict"].value_counts()
    parts = [
        f"{counts[verdict]} of {len(found.classes)} classes: {verdict}"
        for verdict in (verdicts.FOUND, verdicts.NOTHING, verdicts.UNKNOWN)
        if verdict in counts
    ]
    return "; ".join(parts) + f". {int(found.rows['flagged'].sum())} images are flagged."


def _table(found: Audit) -> str:
    names = ("class", "verdict", "images", "flagged", "separation")  # a phone shows the first
    heads = "".join(f"<th>{name}</th>" for name in names)
    lines = []
    for row in found.classes.to_dict("records"):
        mark = ' class="suspicious"' if row["verdict"] == verdicts.FOUND else ""
        unknown = row["verdict"] == verdicts.UNKNOWN
        cells = [row[name] for name in names[:-1]]
        cells.append("–" if unknown else f"{row['separation']:.2f}")
        lines.append("<tr>" + "".join(f"<td{mark}>{escape(str(c))}</td>" for c in cells) + "</tr>")
    return (
        f'<div class="table"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class(found: Audit, label: int) -> str:
    own = found.rows[found.rows["label"] == label]
    flagged = own[own["flagged"]].sort_values("rank")
    rest = own[~own["flagged"]].sort_values("rank")
    middle = rest.iloc[np.linspace(0, len(rest) - 1, min(TYPICAL, len(rest))).astype(int)]
    name = escape(str(own["class"].iloc[0]))
    return "\n".join(
        [
            f"<h2>Class {name}</h2>",
            _distribution(own),
            f"<h3>Flagged: {len(flagged)} of {len(own)}"
            f"{f', the first {FLAGGED}' if len(flagged) > FLAGGED else ''}</h3>",
            _images(found, flagged[:FLAGGED]),
            _files(flagged),
            "<h3>Not flagged, from the highest to the lowest score</h3>",
            _images(found, middle),
        ]
    )


def _images(found: Audit, rows: Any) -> str:
    shown = []
    for index, row in rows.iterrows():
        text = escape(f"{auditing.place(row)}, score {row['score']:.2f}", quote=True)
        uri = data_uri(found.images.pixels[index])
        shown.append(f'<img src="{uri}" alt="{text}" title="{text}" loading="lazy">')
    return f'<div class="images">{"".join(shown)}</div>'


def _files(rows: Any) -> str:
    """Where the images are, to be unfolded: a touch screen shows no titles."""
    lines = [
        f"<li>{escape(auditing.place(row))}, score {row['score']:.2f}</li>"
        for _, row in rows.iterrows()
    ]
    return f"<details><summary>Where they are</summary><ul>{''.join(lines)}</ul></details>"


def _distribution(own: Any) -> str:
    """The scores of a class as an inline SVG."""
    figure = Figure(figsize=(4.4, 1.7), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, max(1e-9, float(own["score"].max())), 40).tolist()
    parts = [own["score"][~own["flagged"]], own["score"][own["flagged"]]]
    axes.hist(parts, bins, stacked=True, color=["#94a3b8", "#dc2626"], label=["kept", "flagged"])
    axes.set(xlabel="score", ylabel="images", yscale="symlog", ylim=(0, None))
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rdmdc", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]


def _equal(found: Audit) -> str:
    if not found.equal:
        return ""
    groups = [
        f"<li>{escape(' = '.join(auditing.place(found.rows.loc[i]) for i in group))}</li>"
        for group in found.equal[:100]
    ]
    return (
        f"<h2>Equal images in different classes: {len(found.equal)}</h2>"
        "<p>At least one label of each is wrong. They are not flagged for it.</p>"
        f"<ul>{''.join(groups)}</ul>"
    )


def _left_out(found: Audit) -> str:
    if not found.survey.faults:
        return ""
    lines = [
        f"<li>{escape(f'{place}: {fault}')}</li>" for place, fault in found.survey.faults[:1000]
    ]
    return f"<h2>Left out: {len(found.survey.faults)}</h2><ul>{''.join(lines)}</ul>"
