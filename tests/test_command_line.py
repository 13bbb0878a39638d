"""The commands, one after the other on a tiny data set; what each says to a fault of its input."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

from rdmdc import progress
from rdmdc.__main__ import LONG, STAGES, main
from rdmdc.errors import ArtifactError
from rdmdc.models import running
from rdmdc.models.native import library as compiled
from rdmdc.progress import Progress
from rdmdc.storage.images import load_images, load_synthetic, save_images
from rdmdc.storage.job_checkpoints import JobCheckpoints
from rdmdc.storage.provenance import Provenance, sha256
from rdmdc.storage.weights import load_weights
from rdmdc.workflow import job_options, presets
from rdmdc.workflow.completing import complete
from rdmdc.workflow.job_options import as_argument
from rdmdc.workflow.stages import computing
from rdmdc.workflow.stages import poison as poison_stage

SMOKE = yaml.safe_load((Path(__file__).parents[1] / "config" / "smoke.yaml").read_text())
PAIR = ("dm", "rdm_dc")
POISONED = "dm_64/target=0"


def edited(config, *edits):
    """A copy of the config with values at paths such as "condense.ipc"."""
    config = deepcopy(config)
    for path, value in edits:
        *sections, key = path.split(".")
        place = config
        for section in sections:
            place = place[section]
        place[key] = value
    return config


CONFIG = edited(
    SMOKE,
    ("dataset.per_class", {"train": 20, "test": 10}),
    ("dataset.size", 8),
    ("networks", {"convnet": {"width": 4, "depth": 2}}),
    ("compile", False),
    ("targets", [0]),
    ("condensers.dm.batch", 8),
    ("condensers.dm.iterations", 3),
    *((f"attacks.{attack}.iterations", 2) for attack in SMOKE["attacks"]),
    *((f"conditions.{name}.panels", ["pair", "screened"]) for name in ("clean", "dm_64")),
    ("evaluate.networks", {"convnet": 2}),
    ("tables.table2.rows", [{"condition": "dm_64", "methods": list(PAIR)}]),
)


def argv(command, options, **paths):
    words = ["stage", command, "--options", as_argument(options), "--code", "c0de"]
    if command in LONG:
        words += ["--checkpoint-minutes", "5"]
    for name, path in paths.items():
        words += [f"--{name}", *map(str, path if isinstance(path, list) else [path])]
    return words


def jobs(config, made, out):
    """Every job's command line in the order of the workflow: inputs in ``made``, results in
    ``out``."""
    config = complete(config)
    train, test = made / "data/train.safetensors", made / "data/test.safetensors"
    target = made / "targets/0.safetensors"
    seed = presets.target_seeds(config)[0]

    def poison(condition, victims):
        options = job_options.poison(config, condition, seed)
        folder = out / condition / "target=0"
        paths = {
            "poisons": folder / "poisons.safetensors",
            "trace": folder / "poisons.trace.parquet",
        }
        return argv("poison", options, train=train, target=target, victims=victims, **paths)

    def condense(case, poisons, panel="pair", screening=()):
        options = job_options.condense(config, case, 0, panel)
        paths = {"poisons": poisons, "screening": list(screening)}
        return argv("condense", options, train=train, **paths, folder=out / case / "run=0")

    def evaluate(case, panel="pair"):
        options = job_options.evaluate(config, case, 0, panel)
        folder = (made if (made / case / "run=0").exists() else out) / case / "run=0"
        return argv("evaluate", options, test=test, targets=[target], folder=folder)

    def figure(name, options, **paths):
        both = {form: out / f"{name}.{form}" for form in ("png", "svg")}
        return argv(f"{name}-figure", options, **paths, **both)

    poisons = made / POISONED / "poisons.safetensors"
    screening = f"{POISONED}/screens/contrastive.parquet"
    table = job_options.table(config, "table2")
    cells = [made / case / "run=0" for case in ("clean", POISONED)]
    scored = [folder / f"{name}.scores.parquet" for folder in cells for name in PAIR]
    sets = [made / POISONED / "run=0" / f"{name}.safetensors" for name in PAIR]
    victims = [made / f"victims/epochs={epochs}.safetensors" for epochs in (0, 1)]
    return {
        "data": argv(
            "data",
            job_options.data(config),
            train=out / "data/train.safetensors",
            test=out / "data/test.safetensors",
        ),
        "target": argv(
            "target",
            job_options.target(config, seed),
            test=test,
            target=out / "targets/0.safetensors",
        ),
        **{
            f"victim {epochs}": argv(
                "victim",
                job_options.victim(config, epochs),
                train=train,
                weights=out / f"victims/epochs={epochs}.safetensors",
            )
            for epochs in (0, 1)
        },
        "direct": poison("direct", []),
        "untargeted": poison("untargeted_64", []),
        "gradient matching": poison("gm_64", victims),
        "poison": poison("dm_64", []),
        "screen": argv(
            "screen",
            job_options.screen(config, POISONED, "contrastive"),
            train=train,
            poisons=[poisons],
            screening=out / screening,
        ),
        "condense clean": condense("clean", []),
        "condense": condense(POISONED, [poisons]),
        "condense screened": condense(POISONED, [poisons], "screened", [made / screening]),
        "evaluate clean": evaluate("clean"),
        "evaluate": evaluate(POISONED),
        "evaluate screened": evaluate(POISONED, "screened"),
        "table": argv(
            "table",
            table,
            scores=scored,
            csv=out / "table.csv",
            markdown=out / "t.md",
            html=out / "t.html",
        ),
        "targets figure": figure("targets", {}, test=test, targets=[target]),
        "poisons figure": figure(
            "poisons", {"eps": 64}, train=train, target=target, poisons=poisons
        ),
        "synthetic figure": figure("synthetic", {"labels": ["DM", "RDM-DC"]}, synthetic=sets),
        "accuracy figure": figure("accuracy-asr", table, scores=scored),
        "matrix figure": figure("matrix", table, scores=scored),
        "provenance page": argv(
            "provenance-page",
            {"preset": config["preset"]},
            artifacts=[made / "table.csv", made / "synthetic.svg"],
            html=out / "provenance.html",
        ),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The whole chain: its folder and what it says on stderr, job by job."""
    folder, said = tmp_path_factory.mktemp("world"), {}
    for name, words in jobs(CONFIG, folder, folder).items():
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            assert main(words) == 0, stderr.getvalue()
        said[name] = stderr.getvalue()
    return SimpleNamespace(folder=folder, said=said)


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the chain -------------------------------------------------------------------------------


def test_the_chain_leaves_every_file_with_its_provenance(world):
    named = {path.relative_to(world.folder).as_posix() for path in listing(world.folder)}
    results = {name for name in named if not name.endswith(".provenance.json")}
    assert named - results == {f"{name}.provenance.json" for name in results}
    parts = (".safetensors", ".trace.parquet", ".scores.parquet")
    expected = {f"{name}.safetensors" for name in ("data/train", "data/test", "targets/0")}
    expected |= {"table.csv", "t.md", "t.html", "provenance.html"}
    expected |= {f"victims/epochs={epochs}.safetensors" for epochs in (0, 1)}
    expected |= {
        f"{condition}/target=0/poisons{part}"
        for condition in ("direct", "untargeted_64", "gm_64", "dm_64")
        for part in (".safetensors", ".trace.parquet")
    }
    expected |= {f"{POISONED}/screens/contrastive.parquet"}
    cells = [(case, name) for case in ("clean", POISONED) for name in PAIR]
    cells += [(POISONED, "screened")]
    expected |= {f"{case}/run=0/{name}{part}" for case, name in cells for part in parts}
    expected |= {
        f"{name}.{form}"
        for name in ("targets", "poisons", "synthetic", "accuracy-asr", "matrix")
        for form in ("png", "svg")
    }
    assert results == expected


def test_every_command_is_run_here():
    run = {words[1] for words in jobs(CONFIG, Path(), Path()).values()}
    assert run == set(STAGES)


def test_tables_and_figures(world):
    table = pd.read_csv(world.folder / "table.csv")
    assert table["method"].tolist() == list(PAIR)
    assert table["networks"].tolist() == [2, 2]
    assert "| RDM-DC" in (world.folder / "t.md").read_text()
    assert (world.folder / "synthetic.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(world.folder / "synthetic.svg").getroot().tag.endswith("svg")


def test_an_artifact_keeps_its_own_method(world):
    path = world.folder / POISONED / "run=0" / "rdm_dc.safetensors"
    own = {"method": "rdm_dc", "case": POISONED, "run": 0}
    options = job_options.condense(complete(CONFIG), POISONED, 0, "pair")
    load_synthetic(path, own | {"estimator": options["estimators"]["rdm_dc"]})


def test_screened_images_are_left_out(world):
    rows = pd.read_parquet(world.folder / POISONED / "screens/contrastive.parquet")
    assert rows.groupby("label")["kept"].sum().tolist() == [17, 17, 17]  # ⌈3/20 · 20⌉ are not
    assert (rows["rank"][~rows["kept"]] < 3).all()
    screened, plain = (
        load_synthetic(world.folder / POISONED / "run=0" / f"{name}.safetensors")
        for name in ("screened", "dm")
    )
    assert not screened.inputs.equal(plain.inputs)


@pytest.mark.parametrize(
    "job",
    ["target", "poison", "screen", "condense", "condense screened", "table", "poisons figure"],
)
def test_the_same_bytes_again(world, tmp_path, job):
    assert main(jobs(CONFIG, world.folder, tmp_path)[job]) == 0
    made = [path for path in listing(tmp_path) if not path.name.endswith(".provenance.json")]
    assert made
    for path in made:
        first = world.folder / path.relative_to(tmp_path)
        assert path.read_bytes() == first.read_bytes(), path.name


# --- faults ----------------------------------------------------------------------------------

STEP = re.compile(r".*: \d+/\d+, loss \S+, [\d:]+ spent, [\d:]+ left")


def fault_of(words, capsys):
    """What a job that fails says, progress apart: a single line."""
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = (line for line in said.err.splitlines() if not STEP.fullmatch(line))
    assert line.startswith(f"rdmdc stage {words[1]}: ")
    return line


FAULTS = [
    ("data", [("dataset.name", "emojis")], r"dataset\.name: .* 'emojis'; there are: emoji"),
    ("data", [("dataset.classes", ["Symbols", "Cars"])], r"dataset\.classes: .* no class 'Cars'"),
    ("data", [("dataset.per_class.test", 10**6)], r"dataset\.per_class\.test .* lower it"),
    (
        "target",
        [("targets", [{"seed": 0, "index": 30, "adversarial_label": 2}])],
        r"target 0: index 30 is outside the test split's 0\.\.29",
    ),
    (
        "target",
        [("targets", [{"seed": 0, "index": 29, "adversarial_label": 3}])],
        r"target 0: adversarial label 3 is outside 0\.\.2",
    ),
    (
        "target",
        [("targets", [{"seed": 0, "index": 29, "adversarial_label": 2}])],
        "target 0: the adversarial label 2 is the true label; choose another",
    ),
    (
        "victim 1",
        [("networks.convnet.depth", 4)],
        r"depth 4 does not fit images of side 8; choose",
    ),
    ("victim 1", [("pretrain.learning_rate", 1e30)], r"epochs=1.* NaN .*pretrain\.learning_rate"),
    (
        "poison",
        [("conditions.dm_64.poisons", 21)],
        r"21 poisons cannot replace images of class '.*', which has 20; set .* poisons to 1\.\.20",
    ),
    (
        "gradient matching",
        [("networks.convnet.width", 5)],
        r"epochs=0\.safetensors: made with network = ",
    ),
    (
        "condense",
        [("condensers.dm.batch", 21)],
        r"batch is 21, but class 'Animals & Nature' has 20 images; lower it",
    ),
    (
        "condense screened",
        [("condensers.dm.batch", 18)],
        r"batch is 18, but class 'Animals & Nature' has 17 images; lower it",
    ),
    (
        "condense",
        [("condensers.dm.initialisation", "real"), ("condensers.dm.ipc", 21)],
        r"ipc.* is 21, but class 'Animals & Nature' has 20",
    ),
    (
        "condense",
        [("condensers.dm.learning_rate", 1e30)],
        r"NaN .*: lower .*learning_rate",
    ),
    (
        "condense",
        [("estimators.spectral_mean.drop", "1")],
        "drop 1 takes 8 of a batch of 8 and .* lower",
    ),
    (
        "condense",
        [("dataset.size", 16)],
        r"train\.safetensors: made with dataset = .*, this job has .*; delete it and run snakemake",
    ),
    (
        "condense",
        [("seed", 1)],
        r"poisons\.safetensors: made with seed = 0, this job has 1; delete",
    ),
    (
        "condense screened",
        [("screens.contrastive.drop", "1/4")],
        r"contrastive\.parquet: made with screen = .*3/20.*, this job has .*1/4.*; delete",
    ),
    ("evaluate", [("seed", 1)], r"dm\.safetensors: made with seed = 0, this job has 1; delete it"),
    (
        "table",
        [("tables.table2.rows", [{"condition": "dm_64", "methods": ["dm", "median"]}])],
        "no scores of method median .*: evaluate it",
    ),
]


@pytest.mark.parametrize(("job", "edits", "fault"), FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(world, tmp_path, capsys, job, edits, fault):
    before = listing(world.folder)
    line = fault_of(jobs(edited(CONFIG, *edits), world.folder, tmp_path)[job], capsys)
    assert re.search(fault, line), line
    assert listing(tmp_path) == {}
    assert listing(world.folder) == before


SCREENED = f"{POISONED}/screens/contrastive.parquet"
INPUTS = [
    ("target", "data/test.safetensors"),
    ("victim 0", "data/train.safetensors"),
    ("poison", "targets/0.safetensors"),
    ("gradient matching", "victims/epochs=1.safetensors"),
    ("screen", f"{POISONED}/poisons.safetensors"),
    ("condense", f"{POISONED}/poisons.safetensors"),
    ("condense screened", SCREENED),
    ("evaluate", f"{POISONED}/run=0/dm.safetensors"),
    ("table", f"{POISONED}/run=0/dm.scores.parquet"),
    ("synthetic figure", f"{POISONED}/run=0/dm.safetensors"),
]


@pytest.mark.parametrize(("job", "file"), INPUTS)
def test_damaged_inputs(world, tmp_path, capsys, job, file):
    made, out = tmp_path / "made", tmp_path / "out"
    shutil.copytree(world.folder, made)
    words, path = jobs(CONFIG, made, out)[job], made / file
    content = path.read_bytes()

    path.unlink()
    assert f"{path}: no such file; run snakemake to make it" in fault_of(words, capsys)
    path.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    assert f"{path}: damaged or changed, its sha256" in fault_of(words, capsys)
    path.with_name(path.name + ".provenance.json").unlink()
    path.write_bytes(content[: len(content) // 2])
    assert re.search(
        f"{path}: damaged .*; delete it and run snakemake again", fault_of(words, capsys)
    )
    path.write_bytes(b"PK\x03\x04 of another kind")
    assert re.search(f"{path}: damaged or of another kind .*; delete it", fault_of(words, capsys))
    assert listing(out) == {}


def metadata(change):
    """Changes what a file says of itself."""

    def spoil(path):
        if path.suffix == ".safetensors":
            tensors, said = contents(path)
            change(said)
            save(path, tensors, said)
            return
        table = pq.read_table(path)
        said = json.loads(table.schema.metadata[b"rdmdc"])
        change(said)
        pq.write_table(table.replace_schema_metadata({b"rdmdc": json.dumps(said)}), path)

    return spoil


def column(name, values=None):
    """Drops a column of a Parquet file, or fills it with others."""

    def spoil(path):
        table = pq.read_table(path)
        place = table.schema.names.index(name)
        if values is None:
            table = table.remove_column(place)
        else:
            table = table.set_column(place, name, [values[: len(table)]])
        pq.write_table(table, path)

    return spoil


def contents(path):
    """Tensors and metadata of a safetensors file."""
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
        return tensors, json.loads(file.metadata()["rdmdc"])


def save(path, tensors, said):
    safetensors.torch.save_file(tensors, path, {"rdmdc": json.dumps(said)})


def tensors(change):
    """Changes the tensors of a safetensors file."""

    def spoil(path):
        content, said = contents(path)
        change(content)
        save(path, {name: value.contiguous() for name, value in content.items()}, said)

    return spoil


def filled(name, value):
    return tensors(lambda content: content[name].fill_(value))


def flattened(name):
    """Images of another shape in the same file."""
    return tensors(lambda content: content.update({name: content[name][..., :4, :]}))


SCORES, SET = f"{POISONED}/run=0/dm.scores.parquet", f"{POISONED}/run=0/rdm_dc.safetensors"
VICTIM, POISONS = "victims/epochs=1.safetensors", f"{POISONED}/poisons.safetensors"
TARGET = "targets/0.safetensors"
STRANGERS = [
    ("table", SCORES, column("margin"), r"columns network, .*, not network, .*, margin, "),
    ("accuracy figure", SCORES, column("run"), "columns network, .*, not network, .*, run, method"),
    ("table", SCORES, column("accuracy", ["high"] * 9), "column accuracy is .*, not double"),
    ("table", SCORES, column("condition", [0] * 9), "column condition is int64, not string"),
    ("table", SCORES, metadata(lambda content: content.pop("kind")), r"\(no 'kind'\)"),
    ("poison", TARGET, metadata(lambda c: c.pop("options")), r"\(no 'options'\)"),
    ("poison", TARGET, tensors(lambda c: c.pop("pixels")), "tensors .*, not .*pixels"),
    ("poison", TARGET, filled("adversarial_label", 7), r"a label outside 0\.\.2"),
    ("evaluate", TARGET, filled("adversarial_label", 3), r"a label outside 0\.\.2"),
    ("targets figure", TARGET, filled("true_label", 3), r"a label outside 0\.\.2"),
    ("poisons figure", TARGET, filled("true_label", 3), r"a label outside 0\.\.2"),
    ("poison", TARGET, flattened("pixels"), r"shape \(3, 4, 8\), the images \(3, 8, 8\)"),
    ("condense", POISONS, flattened("pixels"), r"shape \(3, 4, 8\), images of \(3, 8, 8\)"),
    ("screen", POISONS, flattened("pixels"), r"shape \(3, 4, 8\), images of \(3, 8, 8\)"),
    ("condense", POISONS, filled("labels", 0), "label differs from the label of the"),
    ("poisons figure", POISONS, tensors(lambda c: c["indices"].add_(60)), r"outside 0\.\.59"),
    ("condense screened", SCREENED, column("kept", [False] * 60), "leaves no image of class"),
    ("condense screened", SCREENED, column("label", [0] * 60), "labels are not the training split"),
    ("condense screened", SCREENED, column("index", [0] * 60), "not in the training split's order"),
    ("evaluate", SET, flattened("inputs"), r"shape \(3, 4, 8\), images of \(3, 8, 8\)"),
    ("evaluate", SET, metadata(lambda c: c["class_names"].reverse()), "differ in class_names"),
    ("evaluate", SET, metadata(lambda c: c.update(mean=[0, 0, 0])), "differ in normalisation"),
    ("synthetic figure", SET, metadata(lambda c: c.pop("mean")), r"\(no 'mean'\)"),
    (
        "gradient matching",
        VICTIM,
        tensors(lambda content: content.pop("linear.bias")),
        r"weights linear\.bias of shape None, this network has \(3,\)",
    ),
    (
        "gradient matching",
        VICTIM,
        tensors(lambda content: content.update(more=torch.zeros(2))),
        r"weights more of shape \(2,\), this network has None",
    ),
    (
        "gradient matching",
        VICTIM,
        tensors(lambda content: content.update({"linear.bias": content["linear.bias"][:2]})),
        r"weights linear\.bias of shape \(2,\), this network has \(3,\)",
    ),
]


@pytest.mark.parametrize(("job", "file", "spoil", "fault"), STRANGERS)
def test_well_formed_files_that_do_not_fit(world, tmp_path, capsys, job, file, spoil, fault):
    """As a stranger may send them: without a sidecar, and the options are the job's."""
    made, out = tmp_path / "made", tmp_path / "out"
    shutil.copytree(world.folder, made)
    path = made / file
    path.with_name(f"{path.name}.provenance.json").unlink()
    spoil(path)
    line = fault_of(jobs(CONFIG, made, out)[job], capsys)
    assert re.search(rf"{path}: .*{fault}.*; delete it and run snakemake again$", line), line
    assert listing(out) == {}


def test_a_damaged_page_header(world, tmp_path, capsys):
    shutil.copytree(world.folder, tmp_path / "made")
    path = tmp_path / "made" / SCORES
    path.with_name(f"{path.name}.provenance.json").unlink()
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    line = fault_of(jobs(CONFIG, tmp_path / "made", tmp_path / "out")["table"], capsys)
    assert re.search(f"{path}: damaged .*; delete it and run snakemake again", line)


def test_a_message_of_several_lines_becomes_one(world, tmp_path, capsys, monkeypatch):
    """Some of Arrow's have three."""

    def fails(*_):
        raise ArtifactError("one\ntwo\nthree")

    monkeypatch.setattr(poison_stage, "load_target", fails)
    line = fault_of(jobs(CONFIG, world.folder, tmp_path)["poison"], capsys)
    assert line == "rdmdc stage poison: one two three"


def test_images_that_are_not_square(world, tmp_path, capsys):
    images = load_images(world.folder / "data/train.safetensors")
    flat = type(images)(images.pixels[..., :4, :], *list(vars(images).values())[1:])
    options = job_options.data(complete(CONFIG))
    provenance = Provenance("data", options, "", {}, 0.0)
    save_images(tmp_path / "data/train.safetensors", flat, provenance)
    line = fault_of(jobs(CONFIG, tmp_path, tmp_path / "out")["victim 1"], capsys)
    assert "images are 4 × 8, not square; set dataset.size" in line


def test_a_full_disk(world, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    words = jobs(CONFIG, world.folder, tmp_path)["poison"]
    monkeypatch.setattr(os, "fsync", full)
    line = fault_of(words, capsys)
    assert re.search(r"poisons\.safetensors: cannot be written: No space left .*; free some", line)
    assert listing(tmp_path) == {}


def test_exit_code_of_the_process(world, tmp_path):
    words = jobs(CONFIG, world.folder, tmp_path)["target"]
    words[words.index("--test") + 1] = str(tmp_path / "nothing.safetensors")
    run = subprocess.run([sys.executable, "-m", "rdmdc", *words], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == (
        f"rdmdc stage target: {tmp_path}/nothing.safetensors: no such file;"
        " run snakemake to make it\n"
    )


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "required: COMMAND"),
        (["stage"], "required: STAGE"),
        (["mend"], "invalid choice: 'mend'"),
        (["stage", "target", "--options", "{}", "--test", "x"], "required: --target"),
        (
            ["stage", "target", "--options", "{", "--test", "x", "--target", "y"],
            "argument --options",
        ),
        (
            ["stage", "table", "--options", "{}", "--csv", "x", "--markdown", "y"],
            "required: --scores",
        ),
        (
            ["stage", "evaluate", "--options", "{}", "--test", "x", "--folder", "y"],
            "required: --checkpoint-minutes",
        ),
    ],
)
def test_misuse(words, fault, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert fault in capsys.readouterr().err


# --- checkpoints -----------------------------------------------------------------------------

DATA = "data/train.safetensors"
INPUTS_OF_LONG_JOBS = {
    "victim 1": [DATA],
    "poison": [DATA, TARGET],
    "gradient matching": [DATA, TARGET, "victims/epochs=0.safetensors", VICTIM],
    "screen": [DATA, POISONS],
    "condense": [DATA, POISONS],
    "condense screened": [DATA, POISONS, SCREENED],
    "evaluate": ["data/test.safetensors", TARGET, f"{POISONED}/run=0/dm.safetensors", SET],
}


@pytest.mark.parametrize(("job", "inputs"), INPUTS_OF_LONG_JOBS.items())
def test_a_checkpoint_is_of_all_that_decides_bits(world, tmp_path, monkeypatch, job, inputs):
    """What it leaves out could differ between the job that was killed and the one that goes on."""
    seen = []

    def begin(output, minutes, identity):
        seen.append(identity)
        raise ArtifactError("enough")

    monkeypatch.setattr(computing, "JobCheckpoints", begin)
    words = jobs(CONFIG, world.folder, tmp_path)[job]
    assert main(words) == 1
    hashes = {str(world.folder / name): sha256(world.folder / name) for name in inputs}
    options, here = json.loads(words[3]), running.arithmetic("cpu")
    if job == "evaluate":
        here["compiled"] = {"convnet": False}
    own = {"stage": words[1], "options": options, "code": "c0de", "inputs": hashes}
    assert seen == [{**own, **here}]
    assert here.keys() == {*("compiled", "precision", "products", "threads", "torch", "processor")}


def send(number):
    """A signal to this process, which would end if nothing handled it."""
    assert callable(signal.getsignal(number))
    os.kill(os.getpid(), number)


STEPS = {"victim 1": 2, "poison": 2 * 2, "gradient matching": 2 * 2, "screen": 2, "condense": 3}
STEPS["evaluate"] = len(PAIR) * 2 * 2  # networks, epochs


@pytest.mark.parametrize(("job", "steps"), STEPS.items())
def test_a_job_terminated_at_every_step_ends_with_the_same_bits(
    world, tmp_path, monkeypatch, job, steps
):
    made, out = tmp_path / "made", tmp_path / "out"
    shutil.copytree(world.folder, made)
    for path in (made / POISONED).rglob("*.scores.parquet*"):
        path.unlink()
    words, offer = jobs(CONFIG, made, out)[job], JobCheckpoints.offer

    def terminated(self, state):
        send(signal.SIGTERM)
        offer(self, state)

    monkeypatch.setattr(JobCheckpoints, "offer", terminated)
    for _ in range(steps):
        with pytest.raises(SystemExit, match="143"):
            main(words)
    assert main(words) == 0
    results = [path for folder in (made, out) for path in folder.rglob("*") if path.is_file()]
    assert not [path.name for path in results if path.name.startswith(".")]
    for path in results:
        first = world.folder / path.relative_to(out if path.is_relative_to(out) else made)
        if not path.name.endswith(".provenance.json"):
            assert path.read_bytes() == first.read_bytes(), path.name


# --- compilation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("cc-of-mine", "there is no C compiler cc-of-mine"),
        ("false", "false fails: exit code 1"),
    ],
)
def test_compilation_that_cannot_be(world, tmp_path, capsys, monkeypatch, compiler, reason):
    """The stage says why, once, and computes without it."""
    monkeypatch.setenv("CC", compiler)
    compiled.library.cache_clear()
    config = edited(CONFIG, ("compile", True), ("networks.convnet.width", 16))
    _says_why(world, tmp_path, capsys, config, reason)


def test_compilation_of_an_odd_width(world, tmp_path, capsys):
    config = edited(CONFIG, ("compile", True))
    _says_why(world, tmp_path, capsys, config, "the ConvNet's width 4 is no multiple of 16")


def test_evaluation_notes_how_each_of_its_networks_runs(world, tmp_path, capsys, monkeypatch):
    """What one machine's kernels computed is not resumed where they can't run; each reason once."""
    identities = []

    class Noting(JobCheckpoints):
        def __init__(self, output, minutes, identity):
            identities.append(identity)
            super().__init__(output, minutes, identity)

    monkeypatch.setattr(computing, "JobCheckpoints", Noting)
    monkeypatch.setenv("CC", "cc-of-mine")
    networks = {"convnet": {"width": 16, "depth": 2}, "mlp": {"hidden": 4}}
    config = edited(
        CONFIG,
        ("compile", True),
        ("networks", networks),
        ("evaluate.networks", dict.fromkeys(networks, 1)),
    )
    made = tmp_path / "made"
    shutil.copytree(world.folder, made)
    compiled.library.cache_clear()
    assert main(jobs(config, made, tmp_path)["evaluate"]) == 0
    assert identities[0]["compiled"] == {"convnet": False, "mlp": True}
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compile: ")]
    assert len(said) == 1
    compiled.library.cache_clear()
    running.compiling(False, "cpu", None)


def _says_why(world, folder, capsys, config, reason):
    assert main(jobs(config, world.folder, folder)["victim 1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"compile: {reason}; networks run uncompiled, much slower"
    assert all(STEP.fullmatch(line) for line in said[1:])
    plain = folder / "plain"
    assert main(jobs(edited(config, ("compile", False)), world.folder, plain)["victim 1"]) == 0
    one, other = (load_weights(where / "victims/epochs=1.safetensors") for where in (folder, plain))
    assert all(one[name].equal(other[name]) for name in other)


# --- progress --------------------------------------------------------------------------------


def test_stages_tell_their_progress(world):
    expected = {
        "victim 0": [],
        "victim 1": ["victim: 1/1"],
        "direct": [],
        "poison": ["dm_poison: 1/4", "dm_poison: 4/4"],
        "screen": ["contrastive: 1/2", "contrastive: 2/2"],
        "condense": ["condense: 1/3", "condense: 3/3"],
        "evaluate": [
            f"evaluate {name} by convnet: {epoch}/2" for name in PAIR for epoch in (1, 2, 1, 2)
        ],
        "table": [],
    }
    for job, steps in expected.items():
        lines = world.said[job].splitlines()
        assert [line.partition(",")[0] for line in lines] == steps
        assert all(STEP.fullmatch(line) for line in lines)


def test_a_log_gets_a_line_a_minute(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    shown = Progress("train")
    for total in (10, 2):
        for done in range(1, total + 1):
            now += 20
            shown(done, total, 1 / done)
    assert capsys.readouterr().err.splitlines() == [
        "train: 1/10, loss 1, 00:20 spent, 03:00 left",
        "train: 4/10, loss 0.25, 01:20 spent, 02:00 left",
        "train: 7/10, loss 0.1429, 02:20 spent, 01:00 left",
        "train: 10/10, loss 0.1, 03:20 spent, 00:00 left",
        "train: 1/2, loss 1, 00:20 spent, 00:20 left",
        "train: 2/2, loss 0.5, 00:40 spent, 00:00 left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        shown = Progress("condense")
        for done in (1, 2, 1):
            shown(done, 4, 0.5 / done)
        shown.bar.close()
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while part := os.read(master, 1 << 16):
            said += part
    os.close(master)
    steps = re.compile(r"condense: +(\d+)%\|.*\| ([1-4])/4 \[.*<[\d:]+, .*loss=([\d.]+)\]")
    states = [found.groups() for found in map(steps.match, said.decode().split("\r")) if found]
    assert states == [("25", "1", "0.5"), ("50", "2", "0.25"), ("25", "1", "0.5")]
    assert b"\n" not in said
