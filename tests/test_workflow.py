"""The real workflow on config/smoke.yaml: it completes, and re-runs what changed and only that.

It runs once, in a copy of the sources. A test that edits works in a copy of that copy and counts
the jobs of a dry run by rule.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from contextlib import suppress
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from test_digest import said_otherwise
from test_presets import smallest

from rdmdc.reporting.tables import COLUMNS
from rdmdc.workflow import job_options
from rdmdc.workflow.completing import complete
from rdmdc.workflow.job_options import as_argument

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ("Snakefile", "config.yaml", "config", "profiles", "rdmdc", "workflow")
SMOKE = "config/smoke.yaml"
RESULTS = Path("results/smoke")
PATIENCE = 120  # seconds
PRESETS = [
    p.relative_to(ROOT).as_posix() for p in [ROOT / "config.yaml", *ROOT.glob("config/*.yaml")]
]
FIGURES = {
    "targets_figure": 1,
    "poisons_figure": 1,
    "synthetic_figure": 1,
    "accuracy_asr_figure": 1,
}
MATRIX = {"matrix_figure": 1}  # of the smoke preset's table_untargeted
TABLES_AGAIN = {"table": 5, "accuracy_asr_figure": 1, "matrix_figure": 1, "all": 1}
TOUCHED_BY_A_SET = {**TABLES_AGAIN, "synthetic_figure": 1}

SCREENS = ("signatures", "random_screen", "oracle")  # panels under direct

# Worked out by hand: T targets, R runs, a case for each target of an attacked condition.
BY_HAND = {
    SMOKE: {  # T = 2, but direct has one; R = 1
        "data": 1,
        "target": 2,
        "victim": 2,
        "poison": 4 * 2 + 1,
        "screen": (1 + 2) + 3 * (1 + 1),
        "condense_all": 1 + 2,  # clean, dm_64
        "condense_screened": 1 + 2,
        **{f"condense_{screen}": 1 + 1 for screen in SCREENS},  # clean, direct
        "condense_pair": 3 * 2 + 1 + 1,  # gm_64, untargeted_64, dm_64_real; direct; clean_real
        "evaluate_all": 1 + 2,
        "evaluate_screened": 1 + 2,
        **{f"evaluate_{screen}": 1 + 1 for screen in SCREENS},
        "evaluate_pair": 3 * 2 + 1 + 1,
        "table": 5,
        **FIGURES,
        **MATRIX,
        "all": 1,
    },
    "config/paper.yaml": {  # 316; T = 5, R = 5; all: clean, dm_64; pair: two; plain: two
        "data": 1,
        "target": 5,
        "victim": 16,
        "poison": 5 * 5,
        "condense_all": 5 + 5 * 5,
        "condense_pair": 2 * 5 * 5,
        "condense_plain": 2 * 5 * 5,
        "evaluate_all": 5 + 5 * 5,
        "evaluate_pair": 2 * 5 * 5,
        "evaluate_plain": 2 * 5 * 5,
        "table": 4,
        **FIGURES,
        "all": 1,
    },
    "config/paper-tiny-imagenet.yaml": {  # T = 5, R = 5; pair: clean, dm_64
        "data": 1,
        "target": 5,
        "poison": 5,
        "condense_pair": 5 + 5 * 5,
        "evaluate_pair": 5 + 5 * 5,
        "table": 1,
        **FIGURES,
        "all": 1,
    },
}


# --- running ---------------------------------------------------------------------------------


def environment(folder):
    """Python finds the copied package before the installed one."""
    return {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"} | {
        "PYTHONPATH": str(folder)
    }


def started(folder, *arguments, configfile=SMOKE, overlay=None, cores=2, group=None):
    """The copied workflow, running in its folder; group 0 is one of processes of its own."""
    files = [str(file) for file in (configfile, overlay) if file]
    named = ["--configfile", *files] if files else []
    return subprocess.Popen(
        # a path with "=" is taken for a value of an option that comes before it
        [sys.executable, "-m", "snakemake", *arguments, "--cores", str(cores), *named],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=group,
    )


def snakemake(folder, *arguments, **options):
    """Run the copied workflow in its folder; its return code and all that it prints."""
    run = started(folder, *arguments, **options)
    said, _ = run.communicate()
    return run.returncode, said


def done(folder, *arguments, **options):
    code, said = snakemake(folder, *arguments, **options)
    assert code == 0, said
    return said


def failed(folder, *arguments, **options):
    """What a run says that must fail, in words rather than in a traceback."""
    code, said = snakemake(folder, *arguments, **options)
    assert code != 0, said
    assert "Traceback (most recent call last)" not in said
    return said


def planned(folder, *arguments, **options):
    """The jobs that a dry run would do: for each its rule and its wildcards."""
    said = done(folder, *arguments, "--dry-run", **options)
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)+)", said, re.MULTILINE)
    totals = re.findall(r"^total +(\d+)$", said, re.MULTILINE)
    assert {int(total) for total in totals} == ({len(blocks)} if blocks else set()), said
    assert blocks or "Nothing to be done" in said, said
    jobs = []
    for rule, block in blocks:
        found = re.search(r"^ {4}wildcards: (.*)$", block, re.MULTILINE)
        pairs = found.group(1).split(", ") if found else []
        jobs.append((rule, dict(pair.split("=", 1) for pair in pairs)))
    return jobs


def rules(jobs):
    return Counter(rule for rule, _ in jobs)


def copy_sources(folder):
    folder.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A copy in which nothing has run, nor does; tests run it with --directory or dry."""
    return copy_sources(tmp_path_factory.mktemp("sources") / "copy")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A copy in which the whole smoke preset has run."""
    folder = copy_sources(tmp_path_factory.mktemp("finished") / "copy")
    done(folder)
    return folder


@pytest.fixture
def workspace(finished, tmp_path):
    """A copy of the finished one with its times, to be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(finished, tmp_path / "copy", ignore=ignored)


def settings_of(preset):
    return yaml.safe_load((ROOT / preset).read_text())


def touch_data(settings, folder):
    """A dry run wants a Parquet data set's files, whatever is in them."""
    if settings["dataset"]["source"] != "parquet":
        return
    for part in ("train", "test"):
        listed = settings["dataset"][part]
        for name in [listed] if isinstance(listed, str) else listed:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def write_settings(path, settings):
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def edit(path, old, new):
    source = path.read_text()
    assert source.count(old) == 1, old
    path.write_text(source.replace(old, new))


def artifacts(folder):
    """All files that jobs made, without what varies: logs, benchmarks, provenance."""
    made = (path for path in folder.rglob("*") if path.is_file())
    return {p for p in made if not p.name.endswith((".log", ".tsv", ".provenance.json"))}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(folder):
    return {path.relative_to(folder).as_posix(): sha256(path) for path in artifacts(folder)}


# --- the whole DAG ---------------------------------------------------------------------------


def test_jobs_run_the_copied_package(finished):
    told = subprocess.run(
        [sys.executable, "-c", "import rdmdc; print(rdmdc.__file__)"],
        cwd=finished.parent,
        env=environment(finished),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(told.stdout.strip()) == finished / "rdmdc/__init__.py"


@pytest.mark.parametrize("name", settings_of(SMOKE)["tables"])
def test_tables_carry_clean_columns_and_n(finished, name):
    settings = settings_of(SMOKE)
    wanted = [
        (row["condition"], method, architecture)
        for row in settings["tables"][name]["rows"]
        for method in row["methods"]
        for architecture in settings["evaluate"]["networks"]
    ]
    table = pd.read_csv(finished / RESULTS / f"{name}.csv")
    shown = table[["condition", "method", "architecture"]].itertuples(index=False, name=None)
    assert list(shown) == wanted
    targets = {name: own.get("targets", [0, 1]) for name, own in settings["conditions"].items()}
    counts = table[["targets", "runs", "networks"]].to_numpy().tolist()
    networks = settings["evaluate"]["networks"]
    assert counts == [[len(targets[row[0]]), 1, networks[row[2]]] for row in wanted]
    numbers = ["accuracy_mean", "accuracy_std", "asr_mean", "asr_std", "asr_low", "asr_high"]
    shares = table[[clean + number for clean in ("", "clean_") for number in numbers]]
    assert shares.notna().all(axis=None)
    assert ((shares >= 0) & (shares <= 100)).all(axis=None)
    assert table["p_vs_dm"].notna().equals(table["method"] != "dm")
    text = (finished / RESULTS / f"{name}.md").read_text()
    assert text.startswith(f"# {settings['tables'][name]['title']}\n")
    assert settings["description"] in text
    assert "Clean ASR" in text
    assert sum(text.count(f"{t} × 1 × {n}") for t in (1, 2) for n in (1, 2)) == len(wanted)


@pytest.mark.parametrize(
    "name", ["targets", "poisons", "synthetic", "accuracy_asr", "table_untargeted.matrix"]
)
def test_figures_are_pictures(finished, name):
    with Image.open(finished / RESULTS / f"figures/{name}.png") as picture:
        extremes = picture.convert("L").getextrema()
    assert extremes[1] - extremes[0] > 100
    drawing = ElementTree.parse(finished / RESULTS / f"figures/{name}.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter())) > 20


def test_each_job_has_its_log(finished):
    logs = list((finished / RESULTS / "logs").rglob("*.log"))
    assert len(logs) == sum(BY_HAND[SMOKE].values()) - 1  # all but the rule all


def test_provenance_beside_each_artifact_matches_it(finished):
    made = artifacts(finished / RESULTS)
    sets = 3 * 7 + 3 + 3 * 2 + 8 * 2  # panels: all, screened, those under direct, pair
    assert len(made) == 2 + 2 + 2 + 9 * 2 + 9 + sets * 3 + 5 * 3 + 5 * 2
    known = {str(path.relative_to(finished)): sha256(path) for path in made}
    for path in made:
        sidecar = json.loads(path.with_name(f"{path.name}.provenance.json").read_text())
        assert sidecar["artifact"] == path.name
        assert sidecar["sha256"] == known[str(path.relative_to(finished))]
        assert re.fullmatch("[0-9a-f]{16}", sidecar["code"])
        assert sidecar["inputs"].items() <= known.items()
        assert bool(sidecar["inputs"]) == (path.parent.name != "data")


def test_then_there_is_nothing_to_do(finished):
    assert planned(finished) == []


def test_the_number_of_cores_changes_no_bit(finished, tmp_path):
    folder = copy_sources(tmp_path / "copy")
    done(folder, f"{RESULTS}/gm_64/target=0/run=0/dm.scores.parquet", cores=1)
    made = hashes(folder / RESULTS)
    # data, target, victims, poisons, pair's sets, and clean ones whose classes these take over
    assert len(made) == 2 + 1 + 2 + 2 + 2 * 3 + 7 * 2
    assert made.items() <= hashes(finished / RESULTS).items()


# --- the report ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reported(finished, tmp_path_factory):
    """The folder in which `make report` was called after the smoke preset ran, and what it said."""
    ignored = shutil.ignore_patterns("__pycache__")
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("reported") / "copy", ignore=ignored)
    shutil.copy(ROOT / "Makefile", folder)
    # with the tests' own environment, whether or not that is make's
    variables = {"BIN": Path(sys.executable).parent, "CONFIG": SMOKE, "CORES": 2}
    run = subprocess.run(
        ["make", "-o", ".venv/installed", "report", *(f"{k}={v}" for k, v in variables.items())],
        cwd=folder,
        env={k: v for k, v in environment(folder).items() if not k.startswith("MAKE")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    return folder, run.stdout


def held(folder, name):
    """What the report's page has under that name for its script."""
    page = (folder / "report.html").read_text()
    found = re.findall(rf'<script id="[\w-]+">\s*var {name} = (.*);$', page, re.MULTILINE)
    assert len(found) == 1, name
    return json.loads(found[0])


def content(item):
    return base64.b64decode(item["data_uri"].partition(";base64,")[2])


def test_the_report_runs_nothing_but_its_own_pages(reported):
    assert rules_done(reported[1]) == {"provenance": 1, "report": 1}


def test_the_report_has_every_table_and_figure_with_its_caption(reported):
    folder, _ = reported
    settings = settings_of(SMOKE)
    names = settings["tables"]
    wanted = {
        "Tables": {f"{RESULTS}/{name}.html" for name in names},
        "Tables as CSV": {f"{RESULTS}/{name}.csv" for name in names},
        "Figures": {
            path.relative_to(folder).as_posix() for path in folder.glob(f"{RESULTS}/*/*.svg")
        },
        "Provenance": {f"{RESULTS}/provenance.html"},
    }
    assert len(wanted["Figures"]) == 5
    shown = held(folder, "categories")
    assert {
        name: {p for of in inner.values() for p in of} for name, inner in shown.items()
    } == wanted
    items = held(folder, "results")
    assert items.keys() == set().union(*wanted.values())
    for path, item in items.items():
        assert content(item) == (folder / path).read_bytes()
        assert settings["description"] in unescape(item["caption"])
        assert "system-message" not in item["caption"]  # how docutils says that it failed
    for name in names:
        title = settings["tables"][name]["title"]
        for form in ("html", "csv"):
            assert title in unescape(items[f"{RESULTS}/{name}.{form}"]["caption"])
            assert items[f"{RESULTS}/{name}.{form}"]["labels"] == {"Table": title}
        caption = items[f"{RESULTS}/{name}.csv"]["caption"]
        assert all(f">{column}</tt>" in caption for column in COLUMNS)


def test_the_report_says_what_the_preset_is(reported):
    told = unescape(held(reported[0], "workflow_desc"))
    assert "preset smoke" in told
    assert settings_of(SMOKE)["description"] in told
    assert "system-message" not in told


def test_the_report_has_the_rule_graph_and_run_times(reported):
    ran = BY_HAND[SMOKE].keys() - {"all"} | {"provenance"}
    graph = held(reported[0], "rulegraph_spec")["data"]
    nodes = next(part["values"] for part in graph if part["name"] == "node-data")
    assert {node["rule"] for node in nodes} == ran | {"report"}
    times = held(reported[0], "runtimes_spec")["data"]["values"]
    assert Counter(job["rule"] for job in times) == Counter(BY_HAND[SMOKE]) - Counter(
        ["all"]
    ) + Counter(["provenance"])
    assert all(job["runtime"] >= 0 for job in times)


def test_the_report_names_the_sha256_of_all_that_it_rests_on(reported):
    folder, _ = reported
    text = (folder / RESULTS / "provenance.html").read_text()
    row = r"<tr>\s*<td>([^<]*)</td>(?:\s*<td>[^<]*</td>)*\s*<td>([0-9a-f]{64})</td>\s*</tr>"
    told = re.findall(row, text)
    made = {f"{RESULTS}/{path}": digest for path, digest in hashes(folder / RESULTS).items()}
    del made[f"{RESULTS}/provenance.html"]
    traces = {path for path in made if path.endswith(".trace.parquet")}
    sources = {p.name: sha256(p) for p in (ROOT / "rdmdc/datasets/emoji").glob("*.parquet")}
    made |= sources
    assert dict(told).items() <= made.items()
    left = made.keys() - dict(told).keys()
    assert left <= traces  # but of clean cases, whose classes are taken over, nothing rests on them
    assert not any("/clean/run=0/dm." in path for path in left)
    assert len(told) == len(dict(told))


class Fetched(HTMLParser):
    """Addresses that a browser fetches as it loads a page: all but those of plain links."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = [v for k, v in attributes if k in ("src", "srcset", "href", "xlink:href", "data")]
        self.addresses += named if tag != "a" else []
        self.handle_data(dict(attributes).get("style") or "")

    def handle_data(self, data):
        if self.cdata_elem != "script":
            self.addresses += re.findall(r"@import|url\(\s*[\"']?([^\"')]*)", data)


def test_the_report_fetches_nothing(reported):
    folder, _ = reported
    pages = {"report.html": (folder / "report.html").read_text()}
    for path, item in held(folder, "results").items():
        if item["mime_type"] != "text/csv":
            pages[path] = content(item).decode()
    assert len(pages) == 1 + 5 + 5 + 1
    for path, page in pages.items():
        assert [a for a in Fetched(page).addresses if not a.startswith(("data:", "#"))] == [], path


# --- what an edit re-runs --------------------------------------------------------------------


def comment_everywhere(folder):
    for path in (folder / "rdmdc").rglob("*.py"):
        path.write_text(said_otherwise(path.read_text()))


def edit_one(module, old, new):
    return lambda folder: edit(folder / f"rdmdc/{module}.py", old, new)


def eps_of_one_condition(settings):
    settings["conditions"]["dm_64_real"]["eps"] = 32


def another_target(settings):
    settings["targets"].append(2)


def seldom_saved(settings):
    settings["checkpoint_minutes"] = 0.5


def more_networks(settings):
    settings["evaluate"]["networks"]["convnet"] = 3


CELLS = {"all": 3, "screened": 3, **dict.fromkeys(SCREENS, 2), "pair": 8}
"""Cases of each panel of the smoke preset."""
START = "start = torch.stack([torch.randn(centred.shape[2], generator=g) for g in generators])"
ONES = "start = torch.ones(centred.shape[0], centred.shape[2])"

CODE = {
    "comments, docstrings and words everywhere": (comment_everywhere, {}),
    "how a row of a table is made": (
        edit_one("reporting/tables", "100 * float(interval.low)", "100.0 * float(interval.low)"),
        TABLES_AGAIN,
    ),
    "how figures are saved": (
        edit_one("reporting/figures", '"svg.fonttype": "path"', '"svg.fonttype": "none"'),
        {**FIGURES, **MATRIX, "all": 1},
    ),
    "one figure": (
        edit_one("workflow/stages/synthetic_figure", "loaded = {", "loaded = loaded = {"),
        {"synthetic_figure": 1, "all": 1},
    ),
    "an estimator of one panel": (
        edit_one("estimators/median", "ordered[:, n // 2]) / 2", "ordered[:, n // 2]) / 2.0"),
        {
            **{"condense_all": 3, "evaluate_all": 3},
            # gm_64 and direct take over clean classes of the panel, which is made anew
            **{"condense_pair": 3, "evaluate_pair": 3},
            **TOUCHED_BY_A_SET,
        },
    ),
    "a screen": (
        edit_one("screens/contrastive", "+= relative_to_median(", "+= 1.0 * relative_to_median("),
        {
            "screen": 3,
            "condense_screened": 3,
            "evaluate_screened": 3,
            "table": 1,
            "synthetic_figure": 1,
            "accuracy_asr_figure": 1,
            "all": 1,
        },
    ),
    "a network that evaluates only": (
        edit_one("networks/mlp", "self.inputs + 4 * self.hidden", "4 * self.hidden + self.inputs"),
        {f"evaluate_{panel}": count for panel, count in CELLS.items()} | TABLES_AGAIN,
    ),
    "how the state of jobs is saved": (
        edit_one("storage/job_checkpoints", "def _say", "ALTERED = 1\n\n\ndef _say"),
        {},
    ),
}
CONFIG = {
    "what jobs ask a cluster for": (lambda settings: settings["cluster"].update(gflops=2), {}),
    "eps of one condition": (
        eps_of_one_condition,
        {"poison": 2, "condense_pair": 2, "evaluate_pair": 2, "table": 1, **MATRIX, "all": 1},
    ),
    "another target": (  # its jobs; clean sets are scored on it as well, not condensed again
        another_target,
        {
            "target": 1,
            "poison": 4,  # not direct
            "screen": 1,
            "condense_all": 1,
            "condense_screened": 1,
            "condense_pair": 3,
            "evaluate_all": 1 + 1,
            "evaluate_screened": 1 + 1,
            **{f"evaluate_{screen}": 1 for screen in SCREENS},
            "evaluate_pair": 3 + 1,
            "targets_figure": 1,
            **TABLES_AGAIN,
        },
    ),
    "how often the state of jobs is saved": (seldom_saved, {}),
    "more networks": (
        more_networks,
        {f"evaluate_{panel}": count for panel, count in CELLS.items()} | TABLES_AGAIN,
    ),
}


@pytest.mark.parametrize(("change", "expected"), CODE.values(), ids=CODE)
def test_an_edit_of_code_reruns_what_uses_it(workspace, change, expected):
    change(workspace)
    assert rules(planned(workspace)) == expected


@pytest.mark.parametrize(("change", "expected"), CONFIG.values(), ids=CONFIG)
def test_an_edit_of_the_preset_reruns_what_it_concerns(workspace, change, expected):
    settings = settings_of(SMOKE)
    change(settings)
    write_settings(workspace / SMOKE, settings)
    jobs = planned(workspace)
    assert rules(jobs) == expected
    crafted = {w["condition"] + "/" + w["target"] for rule, w in jobs if rule == "poison"}
    condensed = {w["case"].replace("target=", "") for rule, w in jobs if "condense" in rule}
    assert condensed == crafted


def test_touched_files_of_the_same_content_rerun_nothing(workspace):
    for path in ("data/train", "data/test", "dm_64/target=0/poisons"):
        (workspace / RESULTS / f"{path}.safetensors").touch()
    assert planned(workspace) == []


def test_another_estimator_runs_and_nothing_else_does(workspace):
    """One more file, found without a word elsewhere."""
    before = {path: path.stat().st_mtime_ns for path in artifacts(workspace / RESULTS)}
    source = (workspace / "rdmdc/estimators/mean.py").read_text()
    zero = source.replace("def mean(", "def zero(").replace(
        "vectors.mean(1)", "0 * vectors.mean(1)"
    )
    (workspace / "rdmdc/estimators/zero.py").write_text(zero)
    assert planned(workspace) == []
    settings = settings_of(SMOKE)
    settings["methods"]["zero"] = {
        "label": "Zero",
        "screen": "none",
        "condenser": "dm",
        "estimator": "zero",
    }
    settings["panels"]["new"] = ["zero"]
    settings["conditions"]["clean"]["panels"].append("new")
    settings["conditions"]["direct"]["panels"].append("new")
    settings["tables"]["table_new"] = {
        "title": "A new estimator",
        "reference": "dm",
        "rows": [{"condition": "direct", "methods": ["zero"]}],
    }
    write_settings(workspace / SMOKE, settings)

    jobs = {"condense_new": 1 + 1, "evaluate_new": 1 + 1, "table": 1, "all": 1}
    said = done(workspace)
    assert rules_done(said) == jobs
    table = pd.read_csv(workspace / RESULTS / "table_new.csv")
    assert table["label"].tolist() == ["Zero"] * 2  # by each architecture
    assert {path: path.stat().st_mtime_ns for path in before} == before

    # the power method concerns every panel but the new one
    edit(workspace / "rdmdc/estimators/spectral_mean.py", START, ONES)
    assert rules(planned(workspace)) == {
        "condense_all": 3,
        "evaluate_all": 3,
        "condense_pair": 8,
        "evaluate_pair": 8,
        **TOUCHED_BY_A_SET,
    }


def rules_done(said):
    return Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", said, re.MULTILINE))


def test_another_power_method_changes_the_spectral_sets_only(workspace):
    cases = ("clean/run=0", "direct/target=0/run=0")
    before = hashes(workspace / RESULTS)
    edit(workspace / "rdmdc/estimators/spectral_mean.py", START, ONES)
    said = done(workspace, *(f"{RESULTS}/{case}/rdm_dc.scores.parquet" for case in cases))
    ran = {"condense_all": 1, "evaluate_all": 1, "condense_pair": 1, "evaluate_pair": 1}
    assert rules_done(said) == ran
    after = hashes(workspace / RESULTS)
    assert after.keys() == before.keys()
    changed = {path for path in after if after[path] != before[path]}
    assert {f"{case}/rdm_dc.safetensors" for case in cases} <= changed
    parts = (".safetensors", ".trace.parquet", ".scores.parquet")
    assert changed <= {f"{case}/rdm_dc{part}" for case in cases for part in parts}


# --- jobs that are killed --------------------------------------------------------------------

LONG = 100  # epochs of a victim: seconds


def job_in(folder):
    """The process id of the job that runs in a folder, None where there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:3] == [b"-m", b"rdmdc"] and (process / "cwd").readlink() == folder:
                return int(process.name)
    return None


def wait_for(found, every=0.2):
    """What is found, as soon as it is."""
    end = time.monotonic() + PATIENCE
    while not (answer := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing in {PATIENCE} s")
        time.sleep(every)
    return answer


def wait_for_a_checkpoint(run, checkpoint):
    """Until the job has saved its state, once more where it had before."""
    last = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None

    def saved():
        assert run.poll() is None, run.communicate()[0]
        return checkpoint.exists() and checkpoint.stat().st_mtime_ns != last

    wait_for(saved, every=0.01)


def terminate(folder):
    """End the job that runs in a folder as a preemption does."""
    job = job_in(folder)
    os.kill(job, signal.SIGTERM)
    wait_for(lambda: job_in(folder) != job, every=0.01)


def with_a_long_job(folder):
    """Give the preset a victim of some seconds that saves its state at each step; its paths."""
    settings = settings_of(SMOKE)
    settings["pretrain"]["epochs"].append(LONG)
    settings["checkpoint_minutes"] = 1e-9
    write_settings(folder / SMOKE, settings)
    path = folder / RESULTS / f"victims/epochs={LONG}.safetensors"
    log = folder / RESULTS / f"logs/victims/epochs={LONG}.log"
    return path, path.with_name(f".{path.name}.checkpoint"), log


def sha256_alone(folder):
    """What the long job makes when nobody kills it."""
    settings = complete(settings_of(folder / SMOKE))
    options = as_argument(job_options.victim(settings, LONG))
    words = ["stage", "victim", "--options", options, "--checkpoint-minutes", "5"]
    paths = ["--train", f"{RESULTS}/data/train.safetensors", "--weights", "alone.safetensors"]
    command = [sys.executable, "-m", "rdmdc", *words, *paths]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return sha256(folder / "alone.safetensors")


def test_a_killed_job_goes_on_retried_and_in_another_run(workspace):
    """It is terminated and retried, then killed with its snakemake and run again."""
    path, checkpoint, log = with_a_long_job(workspace)
    victim = path.relative_to(workspace)
    run = started(workspace, victim, "--retries", "1", group=0)
    try:
        wait_for_a_checkpoint(run, checkpoint)
        terminate(workspace)
        wait_for_a_checkpoint(run, checkpoint)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
    said, _ = run.communicate()
    assert said.count("Error in rule victim") == 1
    done(workspace, "--unlock")
    assert rules_done(done(workspace, victim)) == {"victim": 1}
    assert f"{checkpoint.relative_to(workspace)}: the job goes on from here" in log.read_text()
    assert {p.name for p in path.parent.glob(".*")} == set()
    assert sha256(path) == sha256_alone(workspace)


# --- presets ---------------------------------------------------------------------------------


def worked_out(settings):
    """The jobs of a preset by rule: targets × runs × what its tables and figures ask for."""
    targets, runs, conditions = len(settings["targets"]), settings["runs"], settings["conditions"]
    rows = [row for table in settings["tables"].values() for row in table["rows"]]
    asked = {(row["condition"], method) for row in rows for method in row["methods"]}
    asked |= {(conditions[name]["clean"], method) for name, method in asked}
    figures = Counter()
    if settings.get("figures"):
        shown = settings["figures"]["condition"]
        asked |= {
            (shown, m) for panel in conditions[shown]["panels"] for m in settings["panels"][panel]
        }
        tables = [table["rows"] for table in settings["tables"].values()]
        matrices = [
            t for t in tables if len(t) > 1 and len({m for r in t for m in r["methods"]}) > 1
        ]
        figures.update(FIGURES)
        figures.update({"matrix_figure": len(matrices)} if matrices else {})
    attacked = {name for name, _ in asked if conditions[name]["attack"] != "none"}
    hit = {name: len(conditions[name].get("targets", settings["targets"])) for name in attacked}
    jobs = Counter({"data": 1, "target": targets, "poison": sum(hit.values())}) + figures
    jobs.update(table=len(settings["tables"]), all=1)
    screens = {(name, settings["methods"][method]["screen"]) for name, method in asked}
    screened = sum(hit.get(name, 1) for name, screen in screens if screen != "none")
    jobs.update({"screen": screened} if screened else {})
    if any(conditions[name]["attack"] == "gradient_matching" for name in attacked):
        jobs["victim"] = len(settings["pretrain"]["epochs"])
    for panel, methods in settings["panels"].items():
        for name in {name for name, method in asked if method in methods}:
            if panel in conditions[name]["panels"]:
                cells = runs * hit.get(name, 1)
                jobs.update({f"condense_{panel}": cells, f"evaluate_{panel}": cells})
    return jobs


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_plan_the_jobs_worked_out(sources, tmp_path, preset):
    settings = settings_of(preset)
    expected = worked_out(settings)
    assert expected == BY_HAND.get(preset, expected)
    touch_data(settings, tmp_path)
    configfile = None if preset == "config.yaml" else sources / preset
    if configfile is None:
        shutil.copy(sources / preset, tmp_path)  # it is looked for in the working directory
    assert rules(planned(sources, "--directory", tmp_path, configfile=configfile)) == expected


OVERLAYS = [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("config/overlays/*.yaml"))]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_fits_the_presets_that_it_names(sources, tmp_path, overlay):
    command = re.search(
        r"--configfile (\S+) (\S+) -- (\S+)$", (ROOT / overlay).read_text(), re.MULTILINE
    )
    preset, named, wanted = command.groups()
    assert named == overlay
    touch_data(settings_of(preset), tmp_path)
    code, said = snakemake(
        sources,
        "--directory",
        tmp_path,
        "--dry-run",
        wanted,
        configfile=sources / preset,
        overlay=sources / overlay,
    )
    assert code == 0, said
    assert "condense_all" in said


def test_only_config_yaml_is_read_without_a_configfile(sources, tmp_path):
    settings = settings_of(SMOKE)
    settings["preset"] = "default"
    settings["tables"]["table9"] = settings["tables"]["table1"]
    settings["conditions"]["dm_9"] = settings["conditions"]["dm_64"]
    write_settings(tmp_path / "config.yaml", settings)
    jobs = planned(sources, "--directory", tmp_path, configfile=None)
    assert rules(jobs) == {**BY_HAND[SMOKE], "table": 6}
    assert {w["preset"] for _, w in jobs if "preset" in w} == {"default"}
    # with a configfile nothing of it is left
    jobs = planned(sources, "--directory", tmp_path, configfile=sources / SMOKE)
    assert rules(jobs) == BY_HAND[SMOKE]


def test_a_preset_of_the_least_runs_to_scores(sources, tmp_path):
    """Neither targets nor attacks nor tables nor figures."""
    settings = smallest()
    settings["preset"] = "least"
    write_settings(tmp_path / "least.yaml", settings)
    said = done(sources, "--directory", tmp_path, configfile=tmp_path / "least.yaml")
    assert rules_done(said) == {"data": 1, "condense_pair": 1, "evaluate_pair": 1, "all": 1}
    for method in settings["panels"]["pair"]:
        path = tmp_path / f"results/least/clean/run=0/{method}.scores.parquet"
        scores = pd.read_parquet(path)
        networks = settings["evaluate"]["networks"]
        assert Counter(scores["architecture"]) == networks
        assert scores["accuracy"].between(0, 1).all()


# --- errors ----------------------------------------------------------------------------------


def misspelt_key(settings):
    own = settings["condensers"]["dm"]
    own["iterationz"] = own.pop("iterations")


def empty_batch(settings):
    settings["estimators"]["spectral_mean"]["drop"] = "99/100"


def unknown_panel(settings):
    settings["conditions"]["direct"]["panels"] = ["pear"]


def unknown_plugin(settings):
    settings["methods"]["dm"]["estimator"] = "meen"


def misspelt_dataset_key(settings):
    settings["dataset"]["nmae"] = settings["dataset"].pop("name")


FAULTS = {
    "unknown key": (lambda s: s.update(rnus=1), "preset smoke: preset: ", "'rnus'; did you mean"),
    "unknown section": (lambda s: s.update(condense={}), "preset smoke: preset: ", "'condense'"),
    "misspelt key": (misspelt_key, "preset smoke: condensers.dm: ", "'iterationz'"),
    "misspelt key of a source": (misspelt_dataset_key, "preset smoke: dataset: ", "'nmae'"),
    "unknown plug-in": (unknown_plugin, "methods.dm.estimator: ", "'meen'; did you mean mean?"),
    "drop of a whole batch": (empty_batch, "estimators.spectral_mean: ", "a batch of 16"),
    "unknown panel": (unknown_panel, "conditions.direct: ", "'pear'; did you mean pair?"),
}


@pytest.mark.parametrize(("spoil", "key", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_preset_stops_before_any_job(sources, tmp_path, spoil, key, fault):
    settings = settings_of(SMOKE)
    spoil(settings)
    write_settings(tmp_path / "faulty.yaml", settings)
    said = failed(sources, "--directory", tmp_path, configfile=tmp_path / "faulty.yaml")
    assert key in said
    assert fault in said.partition(key)[2].splitlines()[0]
    assert len(said.splitlines()) < 10
    assert not (tmp_path / "results").exists()


TABLES = ", ".join(f"{RESULTS}/{name}.csv" for name in settings_of(SMOKE)["tables"])


@pytest.mark.parametrize(
    ("asked", "answer"),
    {
        f"{RESULTS}/table9.csv": f"preset smoke defines no table9; it has: {TABLES}",
        "results/table2.csv": f"preset smoke has: {TABLES}",
    }.items(),
)
def test_a_table_that_the_preset_lacks_names_those_it_has(sources, tmp_path, asked, answer):
    said = failed(sources, asked, "--directory", tmp_path, configfile=sources / SMOKE)
    assert answer in said
    assert not (tmp_path / "results").exists()


def test_data_files_are_compared_by_content_and_a_damaged_one_is_told(sources, tmp_path):
    settings = settings_of(SMOKE)
    settings["preset"] = "own"
    settings["dataset"] = {
        "source": "parquet",
        "train": "own/train.parquet",
        "test": "own/test.parquet",
        "image_column": "image",
        "label_column": "label",
        "class_names": ["ant", "bee"],
        "classes": None,
        "per_class": None,
        "size": 16,
        "color": "rgb",
        "normalisation": "training_split",
    }
    write_settings(tmp_path / "own.yaml", settings)
    (tmp_path / "own").mkdir()
    for part in ("train", "test"):
        write_images(tmp_path / f"own/{part}.parquet")
    asked = ("results/own/data/train.safetensors", "--directory", tmp_path)
    done(sources, *asked, configfile=tmp_path / "own.yaml")
    data = tmp_path / "results/own/data"
    assert {path.name for path in artifacts(data)} == {"train.safetensors", "test.safetensors"}

    train = tmp_path / "own/train.parquet"
    assert train.stat().st_size > 1e6  # where Snakemake would look at times alone, left to itself
    train.touch()
    assert planned(sources, *asked, configfile=tmp_path / "own.yaml") == []

    train.write_bytes(train.read_bytes()[:-100])
    said = failed(sources, *asked, configfile=tmp_path / "own.yaml")
    told = [line for line in said.splitlines() if line.startswith("rdmdc stage data: ")]
    assert len(told) == 1
    assert "own/train.parquet" in told[0]
    assert (tmp_path / "results/own/logs/data.log").read_text() == f"{told[0]}\n"
    assert artifacts(data) == set()


def write_images(path):
    generator = np.random.default_rng(0)
    images = []
    for _ in range(6):
        file = BytesIO()
        Image.fromarray(generator.integers(0, 256, (400, 400, 3), np.uint8)).save(file, "png")
        images.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1, 0, 1]}), path)
