"""The committed evidence: its rows are those collected, its tables are those that they make."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from kinds import SCORES
from scipy.stats import binomtest
from test_command_line import CONFIG, world  # noqa: F401

from rdmdc.errors import ArtifactError
from rdmdc.records import PoisonSet, Screening
from rdmdc.storage.images import save_poisons
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import save_rows
from rdmdc.storage.screenings import save_screening
from rdmdc.storage.writing import save_bytes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import evidence as kept  # noqa: E402
import reproduction  # noqa: E402
from evidence import EvidenceError  # noqa: E402

FOLDERS = sorted(path.parent for path in reproduction.EVIDENCE.glob("*/preset.yaml"))
DOCUMENTS = [ROOT / "docs" / name for name in ("reproduction.md", "default-preset.md")]
MADE = ("table*.csv", "table*.md", "filter.csv")
REPEATED = {"cifar10_cpu": {9: 0}, "tiny_imagenet_cpu": {9: 0}}
CASE = "dm_64/target=3"
CELL = f"{CASE}/run=0/dm"
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


@pytest.mark.parametrize("kind", ["scores", "traces"])
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


def finished_run(results: Path, margin: float, screened=None) -> Path:
    """A run of one cell, one screen and one table, as the workflow leaves them."""
    inputs = [] if screened is None else [results / CASE / "poisons.safetensors"]

    def begin(**options):
        return Provenance.begin("a stage", options, "c0de", inputs)

    scores = SCORES.assign(margin=margin, adversarial_probability=0.5, true_probability=0.2)
    scores["target"] = 3
    save_rows(results / f"{CELL}.scores.parquet", "scores", scores, begin(case=CASE))
    trace = pd.DataFrame({"iteration": [0, 25], "recall": [None, 0.5]})
    save_rows(results / f"{CELL}.trace.parquet", "trace", trace, begin(case=CASE))
    if screened is not None:
        save_screening(results / CASE / "screens/oracle.parquet", *screened, begin())
    entry = {"title": "T", "note": "", "reference": "dm", "rows": []}
    save_bytes(results / "table1.csv", b"", begin(preset=results.name, **entry))
    preset = results.parent / "preset.yaml"
    preset.write_text(f"preset: {results.name}\n")
    return preset


def test_collecting_again_replaces_a_cell_and_keeps_the_others(tmp_path):
    results, evidence = tmp_path / "mine", tmp_path / "evidence"
    kept.collect(results, finished_run(results, 0.25), evidence)
    (results / "dm_64").rename(results / "dm_128")  # the first run's files are gone
    kept.collect(results, finished_run(results, 0.75), evidence)
    scores = pd.read_parquet(evidence / "mine" / "scores.parquet")
    assert scores.groupby("condition")["margin"].mean().to_dict() == {"dm_64": 0.75, "dm_128": 0.25}
    provenance = pd.read_parquet(evidence / "mine" / "provenance.parquet")
    assert len(provenance) == 4
    assert json.loads(provenance["options"][0])["case"] == CASE
    assert json.loads((evidence / "mine" / "tables.json").read_text())["table1"]["title"] == "T"


LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1])
SCREENING = Screening(
    torch.tensor([0.1, 0.4, 0.3, 0.2, 9, 8, 7], dtype=torch.float64),
    torch.tensor([True, False, False, True, True, True, False]),
)
POISONS = PoisonSet(
    torch.tensor([3, 1]), torch.tensor([0, 0]), torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
)


@pytest.fixture
def screened(tmp_path):
    """The evidence of a run with a screen: of four images two were left out, one of two poisons."""
    results = tmp_path / "mine"
    save_poisons(
        results / CASE / "poisons.safetensors", POISONS, Provenance.begin("poison", {}, "", [])
    )
    preset = finished_run(results, 0.25, (SCREENING, LABELS))
    kept.collect(results, preset, tmp_path / "evidence")
    return tmp_path / "evidence" / "mine"


def test_of_a_screening_poisons_and_counts_are_kept(screened):
    rows = pd.read_parquet(screened / "screenings.parquet")
    columns = ["condition", "target", "screen", "label", "images", "left_out", "rank", "kept"]
    assert list(rows.columns) == columns
    found = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    assert found == [
        ["dm_64", 3, "oracle", 0, 4, 2, 0, 0],
        ["dm_64", 3, "oracle", 0, 4, 2, 2, 1],
        ["dm_64", 3, "oracle", 1, 3, 1, None, None],
    ]
    (row,) = reproduction.left_out(kept.load(screened, "screenings")).to_dict("records")
    assert (row["condition"], row["target"], row["screen"]) == ("dm_64", 3, "oracle")
    assert (row["poisons"], row["recall"], row["classes_flagged"]) == (2, 0.5, 2)
    assert row["others_left_out"] == 2 / 5


def test_a_changed_screening_is_refused(screened):
    rows = pd.read_parquet(screened / "screenings.parquet")
    rows.loc[0, "kept"] = 1
    rows.to_parquet(screened / "screenings.parquet")
    with pytest.raises(EvidenceError, match=r"screens/oracle\.parquet are not those that were"):
        kept.load(screened, "screenings")


def test_a_screening_of_other_poisons_is_not_collected(screened, tmp_path):
    results = tmp_path / "mine"
    other = PoisonSet(POISONS.indices + 1, POISONS.labels, POISONS.pixels)
    save_poisons(
        results / CASE / "poisons.safetensors", other, Provenance.begin("poison", {}, "", [])
    )
    with pytest.raises(
        EvidenceError, match=r"oracle.parquet: not a screening of poisons\.safetens"
    ):
        kept.collect(results, tmp_path / "preset.yaml", tmp_path / "evidence")


def test_a_run_of_the_workflow_is_collected_and_built(world, tmp_path):  # noqa: F811
    """What the stages leave of a preset, from its folder to its tables."""
    results = tmp_path / CONFIG["preset"]
    shutil.copytree(world.folder, results)
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump(CONFIG))
    kept.collect(results, preset, tmp_path / "evidence")
    folder = tmp_path / "evidence" / results.name
    reproduction.build(folder, tmp_path / "out")
    assert (tmp_path / "out" / "table.csv").read_text() == (results / "table.csv").read_text()
    filtered = pd.read_csv(tmp_path / "out" / "filter.csv")
    assert filtered["method"].tolist() == ["dm", "rdm_dc"]
    screens = pd.read_csv(tmp_path / "out" / "screens.csv")
    assert screens["screen"].tolist() == ["contrastive"]
    assert 0 <= screens["recall"][0] <= 1


def test_a_damaged_or_undocumented_file_is_not_collected(tmp_path):
    results, evidence = tmp_path / "mine", tmp_path / "evidence"
    preset = finished_run(results, 0.25)
    path = results / f"{CELL}.scores.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    whole = path.read_bytes()
    path.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match="damaged or changed"):
        kept.collect(results, preset, evidence)
    path.write_bytes(whole)
    path.with_name(f"{path.name}.provenance.json").unlink()
    with pytest.raises(ArtifactError, match=r"dm\.scores\.parquet\.provenance\.json: no such file"):
        kept.collect(results, preset, evidence)
    with pytest.raises(EvidenceError, match="name the folder of a run"):
        kept.collect(tmp_path / "nothing", preset, evidence)


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
