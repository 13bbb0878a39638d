"""`rdmdc condense DATA`: a folder that others open with their own tools, and no work done twice."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import torch
import yaml
from owndata_forms import folder
from owndata_set import made as made
from owndata_set import quick as quick
from PIL import Image
from test_own_data_audit import NAMES, arrays
from test_own_data_messy import survey

from rdmdc.__main__ import main
from rdmdc.owndata import choices, publishing, running
from rdmdc.owndata.survey import Survey
from rdmdc.workflow import checks
from rdmdc.workflow.completing import complete


def files_of(path):
    return {
        str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file() and ".snakemake" not in file.parts
    }


def test_what_is_in_it(made):
    assert sorted(path.name for path in made.set.iterdir()) == [
        *("README.md", "croissant.json", "data", "images", "preset.yaml", "preview.png"),
        *("provenance.json", "set.safetensors"),
    ]
    images = sorted(str(p.relative_to(made.set / "images")) for p in made.set.rglob("images/*/*"))
    assert images == [
        f"00{label}-{name}/00{number}.png"
        for label, name in enumerate(("ant", "bee", "cat-é"))
        for number in range(2)
    ]
    assert not list(made.set.rglob(".*"))


def test_exact_values_and_images_agree(made):
    with safetensors.safe_open(made.set / "set.safetensors", "np") as file:
        inputs, labels = file.get_tensor("inputs"), file.get_tensor("labels")
        said = json.loads(file.metadata()["set"])
    assert said["class_names"] == NAMES and labels.tolist() == [0, 0, 1, 1, 2, 2]
    mean, std = (np.asarray(said[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    wanted = ((inputs * std + mean) * 255).round().clip(0, 255)
    for index, path in enumerate(sorted(made.set.rglob("images/*/*.png"))):
        found = np.asarray(Image.open(path)).transpose(2, 0, 1)
        assert np.abs(found - wanted[index]).max() <= 1


def test_datasets_opens_it(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    opened = datasets.load_dataset(str(made.set), cache_dir=str(tmp_path))["train"]
    assert opened.features["label"].names == NAMES and opened["label"][:] == [0, 0, 1, 1, 2, 2]
    first = np.asarray(Image.open(min(made.set.rglob("images/*/*.png"))))
    assert np.array_equal(np.asarray(opened[0]["image"]), first)


def test_pandas_opens_it(made):
    rows = pd.read_parquet(made.set / "data/train.parquet")
    assert rows["image"][0]["bytes"].startswith(b"\x89PNG") and len(rows) == 6


def test_duckdb_opens_it(made):
    duckdb = pytest.importorskip("duckdb")
    table = str(made.set / "data/train.parquet")
    query = (
        "select label, count(*), min(octet_length(image.bytes)) from ? group by label order by 1"
    )
    rows = duckdb.sql(query.replace("?", f"'{table}'")).fetchall()
    assert [row[:2] for row in rows] == [(0, 2), (1, 2), (2, 2)] and min(
        row[2] for row in rows
    ) > 60


def test_plain_torch_opens_it(made):
    """Nothing but torch and the PNG files, by the folders that torchvision expects."""
    torchvision = pytest.importorskip("torchvision")
    opened = torchvision.datasets.ImageFolder(
        made.set / "images", torchvision.transforms.PILToTensor()
    )
    inputs, labels = next(iter(torch.utils.data.DataLoader(opened, batch_size=6)))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and inputs.shape == (6, 3, 8, 8)


@pytest.mark.filterwarnings("ignore")
def test_its_croissant_is_valid(made):
    mlcroissant = pytest.importorskip("mlcroissant")
    described = mlcroissant.Dataset(jsonld=str(made.set / "croissant.json"))
    assert not described.metadata.issues.errors
    record = next(iter(described.records("train")))
    assert record["train/label"] == 0 and record["train/image"].size == (8, 8)


def test_the_card_s_loop_runs(made):
    text = (made.set / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=made.set, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_card(made):
    text = (made.set / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "cc0-1.0"
    assert "class 'bee': " in text and "left out before condensing" in text
    assert "10% of each class, held out at random" in text and "| 8-bit |" in text
    assert str(made.data.parent) not in text


def test_where_it_comes_from(made):
    said = json.loads((made.set / "provenance.json").read_text())
    files = {str(p.relative_to(made.data)): p for p in made.data.rglob("*.png")}
    digests = said["sha256_of_source_files"]
    assert digests.keys() == files.keys()
    for name, path in list(files.items())[:5]:
        assert digests[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["flagged_by_the_audit"] > 0 and str(made.data.parent) not in json.dumps(said)


def test_no_path_of_this_machine_is_in_it(made):
    """Of the preset, the provenance, the card or a file's metadata: a stranger reads them all."""
    for name, (_, content) in files_of(made.set).items():
        assert str(made.set.parent).encode() not in content, name
        assert str(Path.home()).encode() not in content, name


def test_a_test_split_is_named_without_its_path(tmp_path):
    pixels, labels, _ = arrays(counts=(5, 5, 5))
    for part in ("data", "held-out"):
        folder(tmp_path / part, pixels[:15], labels[:15], NAMES)
    found, _ = survey(tmp_path / "data", test=str(tmp_path / "held-out"))
    assert found["test_from"] == "held-out"


def test_snakemake_goes_on_by_the_preset(made, capfd):
    """By the lines that its first comment tells, beside a set that was moved with its work."""
    lines = [line.strip("# ") for line in (made.set / "preset.yaml").read_text().split("\n")[1:4]]
    assert lines[0].startswith("cd ") and "--configfile ../set/preset.yaml" in lines[2]
    script = " && ".join([f"cd {shlex.quote(str(made.set.parent))}", *lines]) + " --dry-run"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    run = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert run.returncode == 0 and "Nothing to be done" in run.stdout + run.stderr, run.stderr


def test_an_edited_card_stays(tmp_path, capsys):
    card, latest = tmp_path / "README.md", tmp_path / "latest.md"
    publishing.write_card(card, "one", latest)
    publishing.write_card(card, "two", latest)
    assert card.read_text() == "two" and not capsys.readouterr().out
    card.write_text("two, and what I know of it")
    publishing.write_card(card, "three", latest)
    assert card.read_text() == "two, and what I know of it" and latest.read_text() == "three"
    assert "README.md: edited, so it stays as it is" in capsys.readouterr().out


def test_a_second_call_computes_nothing(made):
    results, before = made.work / "results", files_of(made.set)
    first = files_of(results)
    assert main(made.words) == 0
    assert files_of(results) == first
    after = files_of(made.set)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_other_files_are_not_overwritten(tmp_path, capsys, made):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    assert main(["condense", str(made.data), "-o", str(tmp_path / "mine"), "--ipc", "1"]) == 1
    assert "holds other files; name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_call_that_was_killed_goes_on(made, quick, tmp_path):
    """Killed while it condenses; the next call ends with the same bits."""
    words = [*made.words]
    words[words.index("-o") + 1] = str(tmp_path / "set")
    code = (
        "import sys; from rdmdc.__main__ import main; from rdmdc.owndata import choices, verdicts;"
        "verdicts.SCREEN.update(networks=2, others=60);"
        "choices.EVALUATE.update(epochs=2, networks={'convnet': 2}); sys.exit(main(sys.argv[1:]))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True)
    made_already = tmp_path / "set.work/results/own/data/train.safetensors"
    while not made_already.is_file() and run.poll() is None:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(1)
    assert not (tmp_path / "set/README.md").exists()
    assert main(words) == 0
    for name in ("set.safetensors", "data/train.parquet", "preview.png"):
        assert (tmp_path / "set" / name).read_bytes() == (made.set / name).read_bytes()


# --- choices ---------------------------------------------------------------------------------


def request(**changes):
    values = {
        "ipc": 10,
        "method": "audited_dm",
        "iterations": 200,
        "width": 32,
        "size": None,
        "poison_rate": "1/10",
        "device": "cpu",
        "seed": 0,
    }
    return choices.Request(**{**values, **changes})


def found(train=(300, 200), size=64):
    return Survey("folder", ["a", "b"], list(train), [20, 30], "x", size, "80×90", "rgb", [])


@pytest.mark.parametrize("method", choices.METHODS)
def test_every_method_gives_a_preset_without_faults(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = request(method=method)
    chosen = choices.choices(found(), wanted)
    preset = choices.preset(found(), wanted, chosen)
    checks.check(complete(yaml.safe_load(yaml.safe_dump(preset))))


def test_choices_follow_from_the_data():
    chosen = choices.choices(found((90, 40), 32), request(ipc=5, width=64))
    assert {key: chosen[key] for key in ("side", "depth", "batch", "learning_rate")} == {
        "side": 32,
        "depth": 3,
        "batch": 20,
        "learning_rate": 5,
    }
    assert choices.choices(found((90, 40)), request(method="dm"))["batch"] == 40
    said = "\n".join(choices.told(found(), request(), choices.choices(found(), request())))
    for what in ("size: 64", "depth 4", "batch: 100", "learning rate: 20", "audited_dm"):
        assert what in said


def test_a_class_that_is_too_small(capsys):
    with pytest.raises(Exception, match="class 'b' has 3 training images, too few to condense"):
        choices.choices(found((90, 3)), request())


@pytest.mark.parametrize("rate", ["0", "1/2", "ten", "1/0"])
def test_a_poison_rate_that_is_none(made, rate, capsys):
    assert main([*made.words, "--poison-rate", rate]) == 1
    assert f"--poison-rate {rate}: " in capsys.readouterr().err


def test_a_failed_job_tells_its_fault(tmp_path):
    log = tmp_path / "log"
    log.write_text("Error in rule data\nrdmdc stage data: x.png: undecodable; remove it\nExiting\n")
    assert running._fault(log) == "rdmdc stage data: x.png: undecodable; remove it"


def test_two_runs_in_one_folder(tmp_path):
    with (
        running._alone(tmp_path),
        pytest.raises(running.WorkflowError, match="another run"),
        running._alone(tmp_path),
    ):
        pass


def test_a_workflow_that_outlives_its_call_keeps_the_folder(tmp_path):
    """Else the next call would write into the same files beside it."""
    code = (
        "import sys; from pathlib import Path; from rdmdc.owndata import running;"
        "running.command = lambda *_: ['sleep', '600'];"
        "running.run(*map(Path, sys.argv[1:3]), 1, [])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "preset.yaml"), str(tmp_path)]
    run = subprocess.Popen(words, start_new_session=True)
    try:
        while not (tmp_path / "snakemake.log").is_file():
            time.sleep(0.1)
        time.sleep(1)
        run.kill()
        run.wait()
        with pytest.raises(running.WorkflowError, match="another run"), running._alone(tmp_path):
            pass
    finally:
        os.killpg(run.pid, signal.SIGKILL)


def test_the_snakefile_is_where_it_is_looked_for():
    assert running.snakefile() == Path(__file__).parents[1] / "Snakefile"
