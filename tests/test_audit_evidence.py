"""What scripts/audit_evidence.py measures, on a tiny case: poisons are told from other images."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import audit_evidence  # noqa: E402

from rdmdc.owndata import audit, verdicts  # noqa: E402
from rdmdc.records import Screening  # noqa: E402


@pytest.fixture(scope="module")
def loaded():
    return audit_evidence.splits("emoji", Path(), 110)


def arguments(**changes):
    values = {"dataset": "emoji", "data": Path(), "per_class": 110, "iterations": 2}
    return argparse.Namespace(**{**values, **changes})


def test_a_table_grows_and_is_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(verdicts.SCREEN, "networks", 1)
    monkeypatch.setattr(audit, "WIDTH", 4)
    table = tmp_path / "new/table.csv"
    audit_evidence.measure(arguments(table=table, targets=(50, 51), resamples=0))
    first = pd.read_csv(table)
    assert first["kind"].tolist() == ["poisoned"] and first["poisons"].tolist() == [11]
    assert first["images"].tolist() == [770] and first["classes"].tolist() == [7]
    capsys.readouterr()
    audit_evidence.measure(arguments(table=table, targets=(50, 51), resamples=1))
    both = pd.read_csv(table)
    assert both["kind"].tolist() == ["poisoned", "clean"] and both["images"].tolist() == [770, 616]
    assert capsys.readouterr().out.count("\n") == 1
    pd.testing.assert_frame_equal(both[:1], first, check_dtype=False)


def test_recall_is_of_the_poisons(loaded, monkeypatch):
    """A screen that flags the first four poisons, and three images of the last class."""
    poisons = audit_evidence.crafted(loaded, "emoji", 50, 1)

    def screened(images, seed, device):
        import torch

        kept = torch.ones(len(images.labels), dtype=torch.bool)
        kept[poisons.indices[:4]] = False
        kept[-3:] = False
        return Screening((~kept).double(), kept)

    monkeypatch.setattr(audit, "screened", screened)
    row = audit_evidence.measured(poisons.apply(loaded[0]), poisons)
    names = {loaded[0].class_names[int(poisons.labels[0])], loaded[0].class_names[-1]}
    assert row["poisons_flagged"] == 4 and row["others_flagged"] == 3
    assert row["classes_flagged"] == len(names)


def test_resamples_differ_and_come_again(loaded):
    first, second = (audit_evidence.resample(loaded[0], number) for number in (0, 1))
    assert first.counts().tolist() == [88] * 7
    assert not np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.pixels, audit_evidence.resample(loaded[0], 0).pixels)
    originals = {image.numpy().tobytes() for image in loaded[0].pixels}
    assert {image.numpy().tobytes() for image in first.pixels} <= originals


def test_what_a_table_amounts_to():
    rows = pd.DataFrame(
        {
            "kind": ["poisoned", "poisoned", "clean"],
            "images": [100, 100, 80],
            "classes": [4, 4, 4],
            "poisons": [10, 10, 0],
            "poisons_flagged": [10, 5, 0],
            "others_flagged": [0, 9, 2],
            "classes_flagged": [1, 2, 1],
        }
    )
    poisoned, clean = audit_evidence.told(rows)
    assert (
        "2 targets: 75.0% of the poisons flagged on average, at least 50.0%; 1 targets" in poisoned
    )
    assert poisoned.endswith("of all other images 5.00%")
    assert "25.0% of the classes" in clean and "2.50% of the images" in clean


def test_a_folder_with_poisons(loaded, tmp_path, capsys):
    audit_evidence.folder(arguments(out=tmp_path / "out", target=50))
    poisons = audit_evidence.crafted(loaded, "emoji", 50, 2)
    index, name = int(poisons.indices[0]), loaded[0].class_names[int(poisons.labels[0])]
    assert f"11 poisons in the class {name}" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / name / f"{index:05d}.png") as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), poisons.pixels[0])
    assert len(list((tmp_path / "out").rglob("*.png"))) == 770
    assert len(list((tmp_path / "out-test").rglob("*.png"))) == len(loaded[1].labels)


def test_a_picture_of_poisons_and_their_scores(loaded, tmp_path, capsys):
    poisons = audit_evidence.crafted(loaded, "emoji", 50, 2)
    labels = loaded[0].labels.tolist()
    bad = np.isin(np.arange(len(labels)), poisons.indices.numpy())
    rows = pd.DataFrame({"label": labels, "score": bad * 3.0, "flagged": bad})
    rows["file"] = [f"data/class/{index:05d}.png" for index in range(len(labels))]
    rows[::-1].to_parquet(tmp_path / "audit.parquet")
    words = {"out": tmp_path / "x.png", "target": 50, "audit": tmp_path / "audit.parquet"}
    audit_evidence.picture(arguments(**words))
    assert "11 poisons, 11 of them flagged, and 0 others" in capsys.readouterr().out
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1152, 624)
