"""Pages: everything is escaped, they need nothing from elsewhere, and their columns sort."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from test_tables import entry, example

from rdmdc.reporting import table_texts, tables
from rdmdc.reporting.pages import PARTS, page

HOSTILE = "</title><script>alert('&amp;')</script><img src=x onerror=\"alert(1)\"> & π"


class Reader(HTMLParser):
    """A page's elements, and the text in each kind of them."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.texts, self.attributes = [], [], {}, set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.texts.setdefault(tag, []).append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, text):
        if self.open:
            self.texts[self.open[-1]][-1] += text


def test_titles_cells_heads_and_paragraphs_are_escaped():
    shown = Reader(page(HOSTILE, pd.DataFrame({HOSTILE: [HOSTILE], "b": ["1"]}), [HOSTILE]))
    for element, count in (("title", 1), ("h1", 1), ("th", 2), ("td", 2), ("p", 1)):
        assert len(shown.texts[element]) == count
        assert shown.texts[element][0] == HOSTILE
    assert shown.seen.count("script") == 1
    assert "img" not in shown.seen
    assert not {name for name in shown.attributes if name.startswith("on")}


def test_labels_of_a_table_are_escaped():
    rows = [entry("rdm", label=HOSTILE, attack=HOSTILE)]
    shown = Reader(table_texts.html(tables.table(example(), rows, "dm"), HOSTILE, HOSTILE))
    assert shown.texts["td"][:2] == [HOSTILE, HOSTILE]
    assert shown.texts["p"][0] == shown.texts["h1"][0] == HOSTILE
    assert shown.seen.count("script") == 1


def test_a_page_needs_nothing_from_elsewhere():
    text = table_texts.html(tables.table(example(), [entry()], "dm"), "T", "")
    assert not {"link", "img", "iframe"} & set(Reader(text).seen)
    assert not re.search(r"https?://|url\(|@import|\bsrc=|fetch\(", text)


def test_long_texts_are_not_cut():
    text = page("T", pd.DataFrame({"a": ["x" * 500]}), [])
    assert "x" * 500 in text


def test_a_cell_may_have_several_lines():
    shown = Reader(page("T", pd.DataFrame({"a": ["1.5,\nhit 1/4", r"C:\new"]}), []))
    assert shown.texts["td"] == ["1.5,\nhit 1/4", r"C:\new"]


def test_a_page_shows_what_markdown_shows():
    rows = [entry("rdm", label="a|b <c>"), entry("dm", eps=None)]
    table = tables.table(example(), rows, "dm")
    shown = Reader(table_texts.html(table, "Tables & rows", "A note."))
    lines = [x for x in table_texts.markdown(table, "", "").splitlines() if x.startswith("|")]
    texts = [
        [text.strip().replace(r"\|", "|") for text in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in (lines[0], *lines[2:])
    ]
    cells = [text.replace("\n", " ") for text in shown.texts["th"] + shown.texts["td"]]
    assert cells == [text for row in texts for text in row]
    assert shown.texts["p"] == ["A note.", table_texts.EXPLANATION]


# --- sorting ---------------------------------------------------------------------------------

DOCUMENT = """
const [heads, rows, clicks] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const element = (more) => ({
  attributes: {}, listeners: {},
  getAttribute(name) { return this.attributes[name] ?? null; },
  setAttribute(name, value) { this.attributes[name] = value; },
  removeAttribute(name) { delete this.attributes[name]; },
  addEventListener(name, listener) { this.listeners[name] = listener; },
  ...more,
});
const body = {
  rows: rows.map((texts) => ({ cells: texts.map((textContent) => ({ textContent })) })),
  append(...moved) { this.rows = [...this.rows.filter((r) => !moved.includes(r)), ...moved]; },
};
const head = { cells: [] };
head.cells = heads.map((textContent, cellIndex) => element({
  textContent, cellIndex, parentNode: head, closest: () => ({ tBodies: [body] }),
}));
globalThis.document = { querySelectorAll: () => head.cells };
"""
CLICKS = """
const shown = () => body.rows.map((row) => row.cells.map((cell) => cell.textContent));
const states = clicks.map(([column, name, event]) => {
  head.cells[column].listeners[name](event);
  return [shown(), head.cells.map((cell) => cell.getAttribute("aria-sort"))];
});
console.log(JSON.stringify(states));
"""


def sorted_by(heads, rows, clicks):
    """The rows and the heads' directions after each click, as the page's script sorts them."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the page's script with")
    script = DOCUMENT + (PARTS / "sort.js").read_text() + CLICKS
    content = json.dumps([heads, rows, [[c, "click", {}] for c in clicks]])
    run = subprocess.run([node, "-e", script], input=content, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_click_sorts_the_largest_first_and_the_next_turns_it_round():
    rows = [[text] for text in ("9.5 ± 1", "–", "100.0 ± 0", "", "-3", "+20.25, hit 1/4")]
    states = sorted_by(["a"], rows, [0, 0, 0])
    down = ["100.0 ± 0", "+20.25, hit 1/4", "9.5 ± 1", "-3"]
    for (found, directions), expected, direction in zip(
        states, (down, down[::-1], down), ("descending", "ascending", "descending"), strict=True
    ):
        assert [row[0] for row in found] == [*expected, "–", ""]
        assert directions == [direction]


def test_another_column_is_sorted_anew_and_texts_by_the_alphabet():
    rows = [["b", "1"], ["2a1b", "3"], ["a", "2"]]
    (_, first), (by_text, second) = sorted_by(["a", "b"], rows, [1, 0])
    assert (first, second) == ([None, "descending"], ["descending", None])
    assert [row[0] for row in by_text] == ["b", "a", "2a1b"]


def test_a_table_sorts_by_the_numbers_behind_it():
    """Each column in the order of the numbers that it prints first."""
    drawn, rows = [], []
    for i, eps in enumerate((None, 8, 64, 16, 128, 4)):
        scores = example(seed=i)
        scores["condition"] += str(i)
        scores["accuracy"] *= (0.11, 1.5, 1.2, 0.5, 0.1, 0.7)[i]
        drawn.append(scores)
        rows.append(entry("rdm", condition=f"dm64{i}", clean=f"clean{i}", eps=eps))
    table = tables.table(pd.concat(drawn), rows, "dm")
    texts = table_texts._texts(table)
    columns = {
        "eps": "eps",
        "Accuracy": "accuracy_mean",
        "ASR [95 %]": "asr_mean",
        "Clean ASR [95 %]": "clean_asr_mean",
        "Margin (clean)": "margin",
        "p vs DM": "p_vs_dm",
    }
    heads = list(texts.columns)
    clicks = [heads.index(name) for name in columns]
    states = sorted_by(heads, texts.to_numpy().tolist(), clicks)
    for (found, _), (name, column) in zip(states, columns.items(), strict=True):
        number = dict(zip(texts[name], table[column].astype(float), strict=True))
        numbers = pd.Series([number[row[heads.index(name)]] for row in found]).dropna()
        assert numbers.nunique() > 1
        assert (numbers.diff().dropna() <= 0.05).all(), name  # they print one decimal
