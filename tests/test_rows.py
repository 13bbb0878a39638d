"""Scores, traces and screenings: rows of several files, and what people read."""

import pandas as pd
import pytest
from kinds import PLAIN, SCORES, bits

from rdmdc.errors import ArtifactError
from rdmdc.storage.rows import load_all_rows, save_rows
from rdmdc.storage.screenings import load_screening


def test_a_screening_can_be_read_by_people(saved):
    """Ranks count within the class from the most suspicious; of equal scores the first is first."""
    rows = pd.read_parquet(saved("screening"))
    assert list(rows.columns) == ["index", "label", "score", "rank", "kept"]
    assert rows["index"].tolist() == [0, 1, 2, 3, 4]
    assert rows["rank"].tolist() == [0, 1, 2, 0, 1]
    assert rows["kept"].tolist() == [True, True, True, False, True]


def test_a_screening_of_another_split(saved, train):
    with pytest.raises(ArtifactError, match="5 screened images, 39 in the training split"):
        load_screening(saved("screening"), train=train)


def test_rows_of_several_files(saved):
    """Each has its own, also where their columns differ; a fault names its file."""
    paths = [saved("scores", name) for name in "abc"]
    assert list(map(bits, load_all_rows(paths, "scores"))) == [bits(SCORES)] * 3
    assert load_all_rows([], "scores") == []
    saved("target", "b")
    with pytest.raises(ArtifactError, match="/b: damaged or of another kind"):
        load_all_rows(paths, "scores")
    frames = [pd.DataFrame({"a": [1.5]}), pd.DataFrame(), pd.DataFrame({"b": ["x", "y"]})]
    for path, frame in zip(paths, frames, strict=True):
        save_rows(path, "trace", frame, PLAIN)
    found = load_all_rows(paths, "trace")
    assert list(map(bits, found)) == list(map(bits, frames))
