"""The committed evidence: its files are whole, and its tables are those that it makes."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from rdmdc.storage import provenance

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import reproduction  # noqa: E402

FOLDERS = sorted(path.parent for path in reproduction.EVIDENCE.glob("*/preset.yaml"))
MADE = ("table*.csv", "table*.md", "filter.csv")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_tables_are_rebuilt_from_the_scores(folder, tmp_path):
    reproduction.build(folder, tmp_path)
    names = {path.name for pattern in MADE for path in folder.glob(pattern)}
    assert names == {path.name for pattern in MADE for path in tmp_path.glob(pattern)}
    for name in names:
        assert (tmp_path / name).read_text() == (folder / name).read_text(), name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_scores_and_traces_are_those_that_were_made(folder):
    files = [*folder.rglob("*.scores.parquet"), *folder.rglob("*.trace.parquet")]
    assert files
    for path in files:
        made = provenance.read(provenance.sidecar_of(path))
        assert made.sha256 == provenance.sha256(path)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_every_table_says_how_many_targets(folder):
    for path in folder.glob("table*.csv"):
        table = pd.read_csv(path)
        assert (table["targets"] >= 1).all()
        assert {"clean_asr_mean", "asr_low", "asr_high"} <= set(table.columns)


def test_a_changed_score_file_is_refused(tmp_path):
    folder = FOLDERS[0]
    first = min(folder.rglob("*.scores.parquet"))
    copy = tmp_path / first.name
    for path in (first, provenance.sidecar_of(first)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy.write_bytes(bytes(damaged))
    with pytest.raises(provenance.ArtifactError, match="damaged or changed"):
        provenance.verified(copy)


def test_the_evidence_is_small():
    size = sum(p.stat().st_size for p in reproduction.EVIDENCE.rglob("*") if p.is_file())
    assert size <= 20e6
