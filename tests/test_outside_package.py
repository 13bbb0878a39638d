"""A package of somebody else runs in the workflow without an edit of this one."""

from __future__ import annotations

import os
import shutil

import outside
import pandas as pd
import pytest
from test_workflow import copy_sources, done, edit, planned, rules, rules_done

pytestmark = pytest.mark.slow

RESULTS = "results/outside"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the workflow beside the other package, in which its preset has run."""
    folder = copy_sources(tmp_path_factory.mktemp("outside") / "copy")
    outside.write(folder, outside.FILES)
    (folder / "outside.yaml").write_text(outside.PRESET)
    return folder, done(folder, configfile="outside.yaml")


@pytest.fixture
def workspace(finished, tmp_path):
    """A copy with its times, to be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(finished[0], tmp_path / "copy", ignore=ignored)


def test_all_six_kinds_run_to_a_table(finished):
    folder, said = finished
    assert rules_done(said) == {
        "data": 1,
        "target": 1,
        "poison": 1,
        "screen": 2,
        "condense_plain": 2,
        "evaluate_plain": 2,
        "condense_middle": 2,
        "evaluate_middle": 2,
        "table": 1,
        "targets_figure": 1,
        "poisons_figure": 1,
        "synthetic_figure": 1,
        "accuracy_asr_figure": 1,
        "all": 1,
    }
    table = pd.read_csv(folder / RESULTS / "table1.csv")
    assert table["label"].tolist() == ["Plain", "Middle"]
    assert set(table["architecture"]) == {"small"}
    kept = pd.read_parquet(folder / RESULTS / "bright/target=0/screens/darkest.parquet")["kept"]
    assert kept.sum() == 3 * 9  # a quarter of each class is left out
    assert not os.path.lexists(folder / RESULTS / "clean/poisons.safetensors")


def test_then_there_is_nothing_to_do(finished):
    assert planned(finished[0], configfile="outside.yaml") == []


CELLS = {"condense_middle": 2, "evaluate_middle": 2}
SHOWN = {"table": 1, "synthetic_figure": 1, "accuracy_asr_figure": 1, "all": 1}
EDITS = {
    "its estimator": (("middle", "/ 2, None", "/ 2.0, None"), {**CELLS, **SHOWN}),
    "its screen": (("darkest", ".mean((1", ".sum((1"), {"screen": 2, **CELLS, **SHOWN}),
    "what its network imports": (
        ("nets/layer", "torch.relu", "torch.tanh"),
        {
            "poison": 1,
            "screen": 2,
            "condense_plain": 2,
            "evaluate_plain": 2,
            **CELLS,
            "poisons_figure": 1,
            **SHOWN,
        },
    ),
    "words": (("middle", "Halfway between", "In the middle of"), {}),
}


@pytest.mark.parametrize(("change", "expected"), EDITS.values(), ids=EDITS)
def test_an_edit_of_it_reruns_what_uses_it(workspace, change, expected):
    name, old, new = change
    edit(workspace / f"halfway/{name}.py", old, new)
    assert rules(planned(workspace, configfile="outside.yaml")) == expected
