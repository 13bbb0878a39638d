"""`rdmdc audit` on a planted group of poisons, in every form that a data set comes in."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from owndata_forms import FORMS, folder, png
from PIL import Image
from test_screen_contrastive import images, planted

from rdmdc.__main__ import main
from rdmdc.datasets import listed_files
from rdmdc.owndata import audit, verdicts

NAMES = ["ant", "bee", "cat é"]
PLANTED = 40
COLUMNS = ["file", "row", "label", "class", "score", "rank", "flagged", "class_verdict"]
DATALAB = ["is_poison_issue", "poison_score"]


@pytest.fixture(autouse=True)
def few_networks(monkeypatch):
    """What 8 × 8 images need; the audit's own settings are measured at 32 × 32."""
    monkeypatch.setattr(audit, "WIDTH", 8)
    monkeypatch.setattr(audit, "AUGMENTATION", ("flip", "crop"))
    monkeypatch.setitem(verdicts.SCREEN, "networks", 4)
    monkeypatch.setitem(verdicts.SCREEN, "others", 60)


def arrays(poisoned=True, counts=(300, 280, 320)):
    """Pixels (N, H, W, 3), labels, and which are poisons: the first of class 1."""
    train = images(counts)
    poisons = planted(train, 1, PLANTED)
    if poisoned:
        train = poisons.apply(train)
    bad = np.zeros(len(train.labels), dtype=bool)
    bad[poisons.indices.numpy()] = poisoned
    return train.pixels.permute(0, 2, 3, 1).numpy(), train.labels.tolist(), bad


def contents(form, cleaned):
    """The images of a cleaned data set, as PNG."""
    if form == "folder":
        return {path.read_bytes() for path in cleaned.rglob("*.png")}
    if form == "npz":
        with np.load(cleaned / "data.npz") as file:
            return {png(image) for image in file["images"]}
    (path,) = cleaned.glob(f"*.{form}")
    rows = [row for batch in listed_files.batches(form, path, ["image"]) for row in batch[0]]
    return {row["bytes"].as_py() for row in rows}


@pytest.mark.parametrize("form", FORMS)
def test_poisons_are_found_and_dropped(tmp_path, capsys, form):
    pixels, labels, bad = arrays()
    data = FORMS[form](tmp_path / "data", pixels, labels, NAMES)
    out, cleaned = tmp_path / "audit", tmp_path / "cleaned"
    assert main(["audit", str(data), "-o", str(out), "--drop", str(cleaned)]) == 1
    said = capsys.readouterr().out
    assert "suspicious: class 'bee'" in said and "On clean data the audit called" in said

    rows = pd.read_parquet(out / "audit.parquet")
    assert list(rows.columns) == [*COLUMNS, *DATALAB] and len(rows) == len(labels)
    assert rows["flagged"].to_numpy()[bad].all() and rows["flagged"].sum() <= PLANTED + 4
    assert set(rows[rows["class"] == "bee"]["class_verdict"]) == {"suspicious"}
    assert set(rows[rows["class"] == "ant"]["class_verdict"]) == {"nothing found"}
    assert sorted(rows[rows["label"] == 1]["rank"]) == list(range(280))
    assert rows["is_poison_issue"].equals(rows["flagged"].rename("is_poison_issue"))
    assert rows["poison_score"].between(0, 1).all() and rows["poison_score"].min() > 0
    for _, own in rows.groupby("label"):
        assert own.sort_values("poison_score")["score"].is_monotonic_decreasing
    place = rows.iloc[int(np.flatnonzero(bad)[0])]
    if form == "folder":
        assert place["file"] == str(data / "bee" / "0300.png") and place["row"] == -1
    else:
        assert place["row"] == 300

    left = contents(form, cleaned)
    flagged = {png(image) for image in pixels[rows["flagged"].to_numpy()]}
    assert {png(image) for image in pixels[bad]} <= flagged and not left & flagged
    assert left == {png(image) for image in pixels} - flagged

    kept = int((~rows["flagged"]).sum())
    again = cleaned if form in ("folder", "arrow") else cleaned / data.name
    assert main(["audit", str(again), "-o", str(tmp_path / "second")]) == 0
    assert len(pd.read_parquet(tmp_path / "second/audit.parquet")) == kept
    assert not (out / ".work").exists()


def test_a_cleaned_saved_dataset_is_one_that_datasets_opens(tmp_path):
    datasets = pytest.importorskip("datasets")
    pixels, labels, _ = arrays()
    given = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(p) for p in pixels], "label": labels},
        datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}),
    )
    given.save_to_disk(tmp_path / "data")
    words = ["audit", str(tmp_path / "data"), "-o", str(tmp_path / "audit")]
    assert main([*words, "--drop", str(tmp_path / "cleaned")]) == 1
    cleaned = datasets.load_from_disk(tmp_path / "cleaned")
    rows = pd.read_parquet(tmp_path / "audit/audit.parquet")
    assert cleaned["label"][:] == rows["label"][~rows["flagged"]].tolist()
    assert np.array_equal(np.asarray(cleaned[0]["image"]), pixels[0])


def test_clean_data(tmp_path, capsys):
    pixels, labels, _ = arrays(poisoned=False)
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    assert main(["audit", str(data), "-o", str(tmp_path / "audit")]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert not pd.read_parquet(tmp_path / "audit/audit.parquet")["flagged"].any()


class Page(HTMLParser):
    """What a page refers to, and its elements."""

    def __init__(self, text):
        super().__init__()
        self.names, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href", "xlink:href")]


def test_the_report_needs_no_network(tmp_path):
    pixels, labels, bad = arrays()
    names = ["ant", "<script>x</script>", "cat"]
    data = FORMS["parquet"](tmp_path / "data", pixels, labels, names)
    main(["audit", str(data), "-o", str(tmp_path / "audit")])
    text = (tmp_path / "audit/report.html").read_text()
    page = Page(text)
    assert page.names.count("img") >= bad.sum() + 16 and "svg" in page.names
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert page.names.count("script") == 1 and "width=device-width" in text
    assert "2 % of their class or fewer" in text


def test_a_small_class_is_not_judged(tmp_path, capsys):
    pixels, labels, _ = arrays(counts=(99, 280, 320))
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    assert main(["audit", str(data), "-o", str(tmp_path / "audit")]) == 1
    assert "cannot tell: 'ant': fewer than 100 images" in capsys.readouterr().out


def test_only_small_classes_cannot_be_audited(tmp_path, capsys):
    pixels, labels, _ = arrays(counts=(30, 40, 50))
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    assert main(["audit", str(data), "-o", str(tmp_path / "audit")]) == 2
    assert re.search("its largest class has 50 images; below 100", capsys.readouterr().err)


def test_equal_images_in_two_classes_are_named(tmp_path, capsys):
    pixels, labels, _ = arrays(poisoned=False)
    pixels = pixels.copy()
    pixels[700] = pixels[3]
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    main(["audit", str(data), "-o", str(tmp_path / "audit")])
    said = capsys.readouterr().out
    assert "equal images in different classes: 1, such as" in said
    assert "0003.png and" in said and "0700.png" in said
    assert "Equal images in different classes: 1" in (tmp_path / "audit/report.html").read_text()


def test_nothing_is_overwritten(tmp_path, capsys):
    pixels, labels, _ = arrays(counts=(30, 40, 50))
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    assert main(["audit", str(data), "-o", str(tmp_path / "a"), "--drop", str(data)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_how_it_was_made_is_in_the_file(tmp_path):
    import pyarrow.parquet as pq

    pixels, labels, _ = arrays(poisoned=False)
    data = folder(tmp_path / "data", pixels, labels, NAMES)
    main(["audit", str(data), "-o", str(tmp_path / "audit")])
    said = json.loads(pq.read_schema(tmp_path / "audit/audit.parquet").metadata[b"rdmdc"])
    assert said["screen"] == verdicts.SCREEN and said["data"] == str(data)


@pytest.mark.parametrize(("side", "blocks"), [(8, 1), (16, 2), (28, 2), (32, 3), (64, 4), (96, 4)])
def test_depth_by_side(side, blocks):
    assert audit.depth(side) == blocks
