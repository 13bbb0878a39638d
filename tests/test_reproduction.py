"""The committed evidence: its rows are those collected, its tables are those that they make."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import reproduction  # noqa: E402
from reproduction import EvidenceError  # noqa: E402

FOLDERS = sorted(path.parent for path in reproduction.EVIDENCE.glob("*/preset.yaml"))
DOCUMENTS = [ROOT / "docs" / name for name in ("reproduction.md", "default-preset.md")]
MADE = ("table*.csv", "table*.md", "filter.csv")
REPEATED = {"cifar10_cpu": {9: 0}, "tiny_imagenet_cpu": {9: 0}}
CELL = "dm_64/target=3/run=0/dm"
LEMMA = 2665 / 576  # what Lemma 4.1 asks of α


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_tables_are_rebuilt_from_the_scores(folder, tmp_path):
    reproduction.build(folder, tmp_path)
    names = {path.name for pattern in MADE for path in folder.glob(pattern)}
    assert names == {path.name for pattern in MADE for path in tmp_path.glob(pattern)}
    for name in names:
        assert (tmp_path / name).read_text() == (folder / name).read_text(), name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_target_seeds_that_repeat_an_image_are_found(folder):
    scores = pd.read_parquet(folder / "scores.parquet")
    clean = [name for name in scores["condition"].unique() if name.startswith("clean")]
    found = reproduction.repeated_targets(scores, clean)
    assert found == REPEATED.get(folder.name, {})


@pytest.mark.parametrize("kind", reproduction.KINDS)
@pytest.mark.parametrize("change", ["value", "row"])
def test_changed_evidence_is_refused(tmp_path, kind, change):
    folder = tmp_path / "cifar10_choice"
    shutil.copytree(reproduction.EVIDENCE / folder.name, folder)
    path = folder / f"{kind}.parquet"
    rows = pd.read_parquet(path)
    if change == "row":
        rows = rows.drop(index=rows.index[-1])
    else:
        column = {"scores": "predicted_label", "traces": "loss"}[kind]
        rows.loc[rows.index[-1], column] += 1
    rows.to_parquet(path)
    with pytest.raises(EvidenceError, match="not those that were collected"):
        reproduction.build(folder, tmp_path / "out")


def test_rows_without_provenance_are_refused(tmp_path):
    folder = tmp_path / "cifar10_choice"
    shutil.copytree(reproduction.EVIDENCE / folder.name, folder)
    rows = pd.read_parquet(folder / "scores.parquet")
    pd.concat([rows, rows.tail(3).assign(run=1)]).to_parquet(folder / "scores.parquet")
    with pytest.raises(EvidenceError, match="3 rows belong to no file"):
        reproduction.build(folder, tmp_path / "out")


def finished_run(results: Path, margin: float) -> Path:
    """A run of one cell and one table, as the workflow would leave them."""
    contents = {
        f"{CELL}.scores.parquet": pd.DataFrame({"network": [0, 1], "margin": margin, "target": 3}),
        f"{CELL}.trace.parquet": pd.DataFrame({"iteration": [0, 25], "recall": [None, 0.5]}),
    }
    said = dict.fromkeys(("bytes", "stage", "code", "commit", "seconds", "finished"))
    for name, frame in contents.items():
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
        said |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        said |= {"versions": {}, "options": {"case": name}, "inputs": {}}
        path.with_name(f"{path.name}.provenance.json").write_text(json.dumps(said))
    entry = {"title": "T", "note": "", "reference": "dm", "rows": []}
    options = {"options": {**entry, "preset": results.name}}
    (results / "table1.csv.provenance.json").write_text(json.dumps(options))
    preset = results.parent / "preset.yaml"
    preset.write_text(f"preset: {results.name}\n")
    return preset


def test_collecting_again_replaces_a_cell_and_keeps_the_others(tmp_path):
    results, evidence = tmp_path / "mine", tmp_path / "evidence"
    reproduction.collect(results, finished_run(results, 0.25), evidence)
    (results / "dm_64").rename(results / "dm_128")  # the first run's files are gone
    reproduction.collect(results, finished_run(results, 0.75), evidence)
    scores = pd.read_parquet(evidence / "mine" / "scores.parquet")
    assert scores.groupby("condition")["margin"].mean().to_dict() == {"dm_64": 0.75, "dm_128": 0.25}
    provenance = pd.read_parquet(evidence / "mine" / "provenance.parquet")
    assert len(provenance) == 4
    assert json.loads(provenance["options"][0])["case"].startswith("dm_64/target=3/run=0/dm.")
    assert json.loads((evidence / "mine" / "tables.json").read_text())["table1"]["title"] == "T"


def test_a_damaged_or_undocumented_file_is_not_collected(tmp_path):
    results, evidence = tmp_path / "mine", tmp_path / "evidence"
    preset = finished_run(results, 0.25)
    path = results / f"{CELL}.scores.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    whole = path.read_bytes()
    path.write_bytes(bytes(damaged))
    with pytest.raises(EvidenceError, match="damaged or changed"):
        reproduction.collect(results, preset, evidence)
    path.write_bytes(whole)
    path.with_name(f"{path.name}.provenance.json").unlink()
    with pytest.raises(EvidenceError, match=r"has no dm\.scores\.parquet\.provenance\.json"):
        reproduction.collect(results, preset, evidence)
    with pytest.raises(EvidenceError, match="name the folder of a run"):
        reproduction.collect(tmp_path / "nothing", preset, evidence)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_quoted_intervals_are_those_of_the_quoted_counts(document):
    """Every "hit/targets [low, high]" is the exact 95 % interval of that count."""
    quoted = re.findall(r"(\d+)/(\d+) \[([\d.]+), ([\d.]+)\]", document.read_text())
    assert quoted
    for hit, targets, *limits in quoted:
        interval = binomtest(int(hit), int(targets)).proportion_ci(0.95, "exact")
        exact = [f"{100 * limit:.1f}" for limit in (interval.low, interval.high)]
        assert limits == exact, f"{hit}/{targets}"


def test_quoted_rates_stand_in_a_table():
    """Every "mean ± std, hit/targets [low, high]" that the document quotes is in a made table."""
    quoted = re.findall(
        r"([\d.]+ ± [\d.]+), (\d+/\d+ \[[\d.]+, [\d.]+\])", DOCUMENTS[0].read_text()
    )
    made = "".join(path.read_text() for path in reproduction.EVIDENCE.glob("*/table*.md"))
    assert len(quoted) > 20
    assert [rate for rate in quoted if "{}, hit {}".format(*rate) not in made] == []


def test_the_lemmas_bound_is_broken_by_too_few_power_iterations_alone():
    table = pd.read_csv(reproduction.EVIDENCE / "deviation" / "gaussians.csv")
    apart = table[table["rate"] / 100 * table["gap"] > LEMMA]
    broken = apart["deviation_after"] > apart["bound"]
    assert broken.groupby(apart["power_iterations"]).sum().to_dict() == {10: 4, 100: 0}


def test_the_evidence_is_small():
    files = [path for path in reproduction.EVIDENCE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2e6
    assert len(files) <= 100
