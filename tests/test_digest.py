"""A digest changes with all code that can change a job's numbers, and with nothing else.

The package is copied, a module of every room is edited, and the digests of all jobs over all
plug-ins are compared: an edit must show in the jobs that reach it and in no other.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import grimp
import pytest

from rdmdc import plugins
from rdmdc.workflow import digest
from rdmdc.workflow.planning import lazily

ROOT = Path(__file__).parents[1]

ALL_DIGESTS = """
import json
from rdmdc import plugins
from rdmdc.workflow.digest import digest
from rdmdc.workflow.planning import lazily

def of(stage, *modules):
    return digest("rdmdc.workflow.stages." + stage, *modules)

with lazily("torch", "pandas", "scipy"):
    kinds = {kind: plugins.load(kind).plugins.values() for kind in plugins.KINDS}
made = {"target": of("target"), "table": of("table")}
for figure in ("targets", "poisons", "synthetic", "accuracy_asr", "matrix"):
    made[f"{figure}_figure"] = of(f"{figure}_figure")
made["provenance_page"] = of("provenance_page")
stages = {"data": "source", "victim": "network", "evaluate": "network"}
for stage, kind in stages.items():
    made |= {f"{stage}:{p.name}": of(stage, p.module) for p in kinds[kind]}
network = "rdmdc.networks.mlp"
for stage, kind in {"poison": "attack", "screen": "screen"}.items():
    made |= {f"{stage}:{p.name}": of(stage, p.module, network) for p in kinds[kind]}
for condenser in kinds["condenser"]:
    made |= {
        f"condense:{condenser.name}:{p.name}": of("condense", condenser.module, p.module, network)
        for p in kinds["estimator"]
    }
print(json.dumps(made))
"""


def all_digests(folder):
    """The digest of every kind of job, by stage and plug-ins; networks are MLPs but for their own
    jobs. A process of its own, as digests are kept in one."""
    run = subprocess.run(
        [sys.executable, "-B", "-c", ALL_DIGESTS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, and the digests before any edit."""
    folder = tmp_path_factory.mktemp("digest")
    shutil.copytree(
        ROOT / "rdmdc", folder / "rdmdc", ignore=shutil.ignore_patterns("__pycache__", "*.parquet")
    )
    return folder, all_digests(folder)


@pytest.fixture
def editing(package):
    """Changes a file of the copy and tells which jobs' digests differ; undone after the test."""
    folder, before = package
    changed = {}

    def edited(name, change):
        path = folder / name
        changed.setdefault(path, path.read_text() if path.exists() else None)
        text = change(changed[path])
        assert text != changed[path], f"{name} is not edited"
        path.write_text(text)

    def differing():
        after = all_digests(folder)
        assert after.keys() == before.keys()
        return {job for job in before if before[job] != after[job]}

    edited.differing = differing
    yield edited
    for path, text in changed.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


def jobs(before, *patterns):
    """The jobs that fit the patterns; each pattern fits one at least."""
    for pattern in patterns:
        assert any(fnmatch(job, pattern) for job in before), pattern
    return {job for job in before if any(fnmatch(job, pattern) for pattern in patterns)}


# --- what shows ------------------------------------------------------------------------------


def altering(name):
    """One more statement in a function or method; comments are lost, and so they are nowhere."""

    def change(source):
        tree = node = ast.parse(source)
        for part in name.split("."):
            node = next(n for n in node.body if getattr(n, "name", None) == part)
        node.body.append(ast.parse("altered = 1").body[0])
        return ast.unparse(tree)

    return change


def replacing(old, new):
    def change(source):
        assert source.count(old) == 1, old
        return source.replace(old, new)

    return change


COMPUTE = ("data", "target", "victim", "poison", "screen", "condense", "evaluate")
COMPUTING = ("victim:*", "poison:*", "screen:*", "condense:*", "evaluate:*")
CONVNET = ("victim:convnet", "evaluate:convnet")
MATCHING = tuple(f"condense:{c}:*" for c in ("dm", "datadam", "factorisation", "dc", "dsa"))
AUGMENTING = (*MATCHING, "condense:mtt:*", "condense:dd:*")
SORTING = ("condense:*:median", "condense:*:trimmed_mean")
TRAINING = tuple(
    f"screen:{name}" for name in ("spectral_signatures", "activation_clustering", "deep_knn")
)
PROJECTING = tuple(f"screen:{name}" for name in ("contrastive*", "density", "quantum_entropy"))
CONTRAST = (*PROJECTING, "condense:*:contrastive_mean")
FIGURES = ("*_figure",)
IMAGE_FIGURES = ("targets_figure", "poisons_figure", "synthetic_figure")
TABLES = ("table", "accuracy_asr_figure", "matrix_figure")

SHOWS = {  # file, edit, jobs that reach it
    # the root
    "rates.py": (altering("count"), ["data:*", *COMPUTING]),
    "options.py": (altering("build"), ["data:*", *COMPUTING]),
    "randomness.py": (altering("generator"), ["target", *COMPUTING]),
    "records.py": (
        altering("Normalisation.normalise"),
        ["data:*", "target", *COMPUTING, *IMAGE_FIGURES],
    ),
    "training_data.py": (altering("TrainingData.pixels"), ["screen:*", "condense:*"]),
    "contrast.py": (altering("top_contrast"), [*CONTRAST, "poison:adaptive_dm"]),
    # models
    "models/__init__.py": (lambda text: f"{text}\nimport torch\n", [*COMPUTING]),
    "models/network.py": (altering("uniform"), [*COMPUTING]),
    "models/running.py": (altering("_in_chunks"), [*COMPUTING]),
    "models/augment.py": (
        altering("augment"),
        ["victim:*", "poison:*", "evaluate:*", *AUGMENTING, *PROJECTING, *TRAINING],
    ),
    "models/training.py": (
        altering("fit"),
        ["victim:*", "evaluate:*", *TRAINING],
    ),
    "models/layers.py": (  # of all networks but the ConvNet
        altering("draw_linear"),
        ["poison:*", "screen:*", "condense:*", "victim:[!c]*", "evaluate:[!c]*"],
    ),
    "models/native/convnet.py": (altering("kernels"), [*CONVNET]),
    "models/native/library.py": (altering("library"), [*CONVNET, *SORTING]),
    "models/native/learning.py": (altering("learn"), [*CONVNET]),
    "models/native/sorting.py": (altering("sort_samples"), [*SORTING]),
    "models/native/convnet.c": (
        lambda text: text.replace("0.25f", "0.5f", 1),
        [*CONVNET, *SORTING],
    ),
    # plug-ins and what they share
    "networks/convnet.py": (altering("ConvNet.embed"), [*CONVNET]),
    "networks/vgg11.py": (altering("vgg11"), ["victim:vgg11", "evaluate:vgg11"]),
    "datasets/split.py": (altering("unique"), ["data:*"]),
    "datasets/decoding.py": (altering("load"), ["data:*"]),
    "datasets/normalisation.py": (altering("normalisation"), ["data:*"]),
    "datasets/preparing.py": (altering("prepared"), ["data:*"]),
    "datasets/targets.py": (altering("draw"), ["target"]),
    "sources/folder.py": (altering("class_folders"), ["data:folder"]),
    "sources/parquet.py": (altering("read"), ["data:parquet", "data:embedded"]),
    "attacks/crafting.py": (altering("craft"), ["poison:*"]),
    "attacks/optimisers.py": (altering("sign_adam"), ["poison:*"]),
    "attacks/dm_poison.py": (
        altering("dm_objective"),
        ["poison:dm_poison", "poison:selected_dm"],
    ),
    "attacks/gradient_matching.py": (altering("gradient_matching"), ["poison:gradient_matching"]),
    "screens/screening.py": (altering("keep_without_top"), ["screen:*"]),
    "screens/projecting.py": (altering("project"), [*PROJECTING]),
    "screens/minorities.py": (
        altering("otsu"),
        ["screen:contrastive_minorities", "screen:activation_clustering"],
    ),
    "screens/oracle.py": (altering("oracle"), ["screen:oracle"]),
    "estimators/estimate.py": (altering("mean_without_top"), ["condense:*"]),
    "estimators/sorting.py": (altering("sort_samples"), [*SORTING]),
    "estimators/mean.py": (altering("mean"), ["condense:*:mean"]),
    "condensers/dm.py": (altering("dm"), ["condense:dm:*"]),
    "condensers/task.py": (altering("sample_others"), ["condense:*"]),
    "condensers/deviation.py": (altering("trace_rows"), [*MATCHING]),
    "condensers/sets.py": (altering("condensed"), ["condense:*"]),
    "condensers/matching_means.py": (
        altering("gradients"),
        [f"condense:{c}:*" for c in ("dm", "datadam", "factorisation")],
    ),
    "condensers/unrolling.py": (altering("unroll"), ["condense:mtt:*", "condense:dd:*"]),
    "metrics/evaluate.py": (altering("evaluate"), ["evaluate:*"]),
    # storage: what is read and written as bytes
    "storage/tensors.py": (
        altering("load"),
        ["data:*", "target", *COMPUTING, "targets_*", "poisons_*", "synthetic_*"],
    ),
    "storage/rows.py": (altering("_table"), ["poison:*", "s*:*", "c*:*", "e*:*", *TABLES]),
    "storage/screenings.py": (altering("load_screening"), ["screen:*", "condense:*"]),
    "storage/weights.py": (altering("load_weights"), ["victim:*", "poison:*"]),
    # tables and figures
    "reporting/tables.py": (altering("table"), [*TABLES]),
    "reporting/table_texts.py": (altering("csv"), ["table"]),
    "reporting/figures.py": (altering("rendered"), [*FIGURES]),
    "reporting/image_figures.py": (altering("targets"), [*IMAGE_FIGURES]),
    "reporting/accuracy_asr.py": (altering("accuracy_asr"), ["accuracy_asr_figure"]),
    "reporting/matrix.py": (altering("matrix"), ["matrix_figure"]),
    "reporting/lineage.py": (altering("html"), ["provenance_page"]),
    # stages
    "workflow/stages/job.py": (altering("begin"), ["data:*", "target", *COMPUTING]),
    "workflow/stages/computing.py": (altering("network_of"), [*COMPUTING]),
    "workflow/stages/condense.py": (altering("run"), ["condense:*"]),
    "workflow/stages/tabulating.py": (altering("tabulated"), [*TABLES]),
    "workflow/stages/drawing.py": (altering("save"), [*FIGURES]),
    "workflow/stages/poisons_figure.py": (altering("run"), ["poisons_figure"]),
}


@pytest.mark.parametrize("name", SHOWS)
def test_an_edit_shows_in_the_jobs_that_reach_it_and_in_no_other(package, editing, name):
    change, patterns = SHOWS[name]
    editing(f"rdmdc/{name}", change)
    assert editing.differing() == jobs(package[1], *patterns)


def test_every_room_is_edited_here():
    edited = {Path(name).parent.as_posix() for name in SHOWS}
    rooms = {
        path.parent.relative_to(ROOT / "rdmdc").as_posix()
        for path in (ROOT / "rdmdc").rglob("*.py")
        if path.name != "__init__.py"
    }
    # workflow itself only plans, and no job reaches the commands on people's own data
    assert edited >= rooms - {"workflow", "owndata"}
    own_data = digest.reached("rdmdc.workflow.stages.data", "rdmdc.sources.own_data")
    assert not any(module.startswith("rdmdc.owndata") for module in own_data)


# --- what does not show ----------------------------------------------------------------------


def said_otherwise(source):
    """Comments, blank lines, line breaks, docstrings, words of errors and of options change."""
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    for node in sorted(ast.walk(tree), key=lambda n: -getattr(n, "lineno", 0)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            place = node.body[0].lineno - 1
            indent = re.match(" *", lines[place]).group()
            quoted = lines[place].replace('"""', '"""In other words: ', 1)
            lines[place] = f"{indent}# a comment\n\n\n{quoted}"
    text = re.sub(r'^"""', '"""In other words: ', "".join(lines), count=1)
    text = re.sub(r'(Error\(\s*f?")(?=\w)', r"\1in other words: ", text)
    text = re.sub(r'(\boption\(\s*")(?=\w)', r"\1in other words: ", text)
    text = re.sub(r"^( +)(return \w+)$", r"\1# so\n\1\2", text, flags=re.MULTILINE)
    return f"# a comment\n{text}\n\n# another\n"


def test_words_show_nowhere(package, editing):
    folder, _ = package
    counts = {"docstring": 0, "Error(": 0, "option(": 0}
    for path in sorted((folder / "rdmdc").rglob("*.py")):
        before = path.read_text()
        editing(path.relative_to(folder), said_otherwise)
        after = path.read_text()
        compile(after, path, "exec")
        counts["docstring"] += after.count('"""In other words: ') - before.count('"""In other')
        counts["Error("] += len(re.findall(r'Error\(\s*f?"in other words', after))
        counts["option("] += len(re.findall(r'option\(\s*"in other words', after))
    assert min(counts.values()) > 50, counts
    assert editing.differing() == set()


SILENT = {  # file: edits of what changes no number
    "__init__.py": replacing('__version__ = "', '__version__ = "9.'),
    "errors.py": altering("line"),
    "plugins.py": altering("get"),
    "progress.py": altering("Progress.__call__"),
    "wording.py": altering("nearest"),
    "checkpoints.py": altering("NoCheckpoints.resume"),
    "storage/guarded.py": altering("guarded"),
    "storage/provenance.py": altering("sha256"),
    "storage/reading.py": altering("reading"),
    "storage/job_checkpoints.py": altering("JobCheckpoints.offer"),
    "storage/writing.py": altering("write"),
    "storage/verify.py": altering("verify"),
    "workflow/digest.py": altering("DigestError"),
    "workflow/presets.py": altering("chosen"),
    "workflow/completing.py": altering("complete"),
    "workflow/checks.py": altering("check"),
    "workflow/keys.py": altering("Preset"),
    "workflow/resources.py": altering("memory_mb"),
    "workflow/planning.py": altering("_Later"),
    "workflow/job_options.py": altering("condense"),
    "__main__.py": altering("main"),
    "models/native/convnet.c": lambda text: (
        "/* a word,\n   one more */" + text.replace("\n", "\n\n")
    ),
}


def test_what_changes_no_number_shows_nowhere(editing):
    for name, change in SILENT.items():
        editing(f"rdmdc/{name}", change)
    assert editing.differing() == set()


def test_reporting_shows_in_no_job_that_computes(package, editing):
    folder, before = package
    for path in (folder / "rdmdc/reporting").glob("*.py"):
        editing(path.relative_to(folder), lambda text: f"{text}\naltered = 1\n")
    assert editing.differing() == jobs(before, "table", *FIGURES, "provenance_page")


NO_WORDS = {" in all)", ", … (", "exit code ", "the list", "synthetic set", "crafting trace"}
"""Texts of several words which count: a list's abbreviation, places, and kinds of artifacts."""


def test_no_sentence_counts():
    """Of the modules that decide numbers, no text of several words is left, whoever says it."""
    with lazily("torch", "pandas", "scipy"):
        modules = [p.module for kind in plugins.KINDS for p in plugins.load(kind).plugins.values()]
    reached = digest.reached(*modules, *(f"rdmdc.workflow.stages.{stage}" for stage in COMPUTE))
    texts = {
        (node.value, module)
        for module in reached
        for node in ast.walk(ast.parse(digest._content(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    several = {(text, of) for text, of in texts if len(text.split()) > 1}
    assert {(text, of) for text, of in several if text not in NO_WORDS} == set()
    assert {text for text, _ in several} == NO_WORDS


def test_another_plugin_shows_nowhere(package, editing):
    folder, _ = package
    source = (folder / "rdmdc/estimators/mean.py").read_text()
    editing("rdmdc/estimators/zero.py", lambda _: source.replace("def mean(", "def zero("))
    after = all_digests(folder)
    new = {job for job in after if job not in package[1]}
    assert new == {f"{job.removesuffix(':mean')}:zero" for job in after if job.endswith(":mean")}
    assert {job: after[job] for job in package[1]} == package[1]


def test_two_plugins_have_two_digests(package):
    _, before = package
    for kind in ("data", "victim", "poison", "screen", "condense", "evaluate"):
        own = [value for job, value in before.items() if job.startswith(f"{kind}:")]
        assert len(set(own)) == len(own) > 0


# --- nothing is overlooked -------------------------------------------------------------------

IMPORTED = """
import json, os, sys
from importlib import import_module
import matplotlib.figure, numpy, pyarrow.parquet
from rdmdc.workflow.digest import CHANGES_NO_NUMBER, reached
from rdmdc.workflow.planning import lazily

reached("rdmdc.rates")  # the import graph, for all children

def overlooked(name):
    with lazily("torch", "pandas", "scipy"):
        before = set(sys.modules)
        import_module(name)
    mine = {n for n in set(sys.modules) - before if n.partition(".")[0] == "rdmdc"}
    return sorted(mine - reached(name) - CHANGES_NO_NUMBER)

for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        print(json.dumps([name, overlooked(name)]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_digest_counts_all_that_python_imports():
    """Python's own account of what a stage or a plug-in imports when it is imported first."""
    rooms = ["workflow/stages", "attacks", "screens", "condensers", "estimators", "networks"]
    paths = [path for room in [*rooms, "sources"] for path in (ROOT / "rdmdc" / room).glob("*.py")]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(paths)
        if path.stem != "__init__"
    ]
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED, *names], capture_output=True, text=True, check=True
    )
    overlooked = dict(map(json.loads, run.stdout.splitlines()))
    assert list(overlooked) == names
    for name, modules in overlooked.items():
        assert set(modules) <= {"rdmdc.storage"}, name  # the package of what reads sidecars


def test_a_module_s_imports_are_those_of_its_import_graph():
    graph = grimp.build_graph("rdmdc", exclude_type_checking_imports=True, cache_dir=None)
    modules = graph.modules - {"rdmdc"}
    assert len(modules) > 100
    for name in modules:
        assert digest._imports(name) - {"rdmdc"} == (
            graph.find_modules_directly_imported_by(name) - {"rdmdc"}
        ), name


# --- plug-ins of other packages --------------------------------------------------------------

OTHERS = {
    "mending/__init__.py": '"""Estimators of others."""\n',
    "mending/robust.py": (
        "from mending.inner.weights import weigh\nfrom rdmdc import plugins\n"
        "from rdmdc.estimators.estimate import Estimate\n\n"
        "TABLE = 'table.txt'\n\n\n"
        "@plugins.estimator()\ndef robust(vectors, generators, options):\n"
        '    """Robust."""\n    return Estimate(weigh(vectors), None)\n'
    ),
    "mending/inner/__init__.py": "",
    "mending/inner/weights.py": (
        "from . import sums\n\n\ndef weigh(vectors):\n"
        '    """Weigh."""\n    return sums.total(vectors) / 2\n'
    ),
    "mending/inner/sums.py": "def total(vectors):\n    return vectors.sum(1)\n",
    "mending/table.txt": "1 2 3\n",
    "mending/unused.py": "NUMBER = 1\n",
    "alone.py": (
        "import torch\nfrom rdmdc import plugins, rates\n\n\n"
        "@plugins.estimator()\ndef alone(vectors, generators, options):\n"
        '    """Alone."""\n    return rates.count("1/10", 3)\n'
    ),
    # a plug-in of one file, its helper, and what others installed beside it
    "single.py": (
        "import library\nimport single_sums\nfrom rdmdc import plugins\n\n\n"
        "@plugins.estimator()\ndef single(vectors, generators, options):\n"
        '    """Single."""\n    return single_sums.total(library.prepared(vectors))\n'
    ),
    "single_sums.py": (
        "from typing import TYPE_CHECKING\n\nfrom single_tables import weigh\n\n"
        "if TYPE_CHECKING:\n    import single_types\n\n\n"
        "def total(vectors):\n    return weigh(vectors.sum(1))\n"
    ),
    "single_tables/__init__.py": "def weigh(vectors):\n    return vectors / 2\n",
    "single_types.py": "NUMBER = 1\n",
    "library.py": "def prepared(vectors):\n    return vectors + 0\n",
    "single-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: single\nVersion: 1.0\n",
    "single-1.0.dist-info/top_level.txt": "single\nsingle_sums\nsingle_tables\nsingle_types\n",
    "library-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: library\nVersion: 1.0\n",
    "library-1.0.dist-info/top_level.txt": "library\n",
    # a namespace package, without __init__.py
    "space/robust/halved.py": (
        "from rdmdc import plugins\nfrom space.sums import total\n\nfrom . import halves\n\n\n"
        "@plugins.estimator()\ndef halved(vectors, generators, options):\n"
        '    """Halved."""\n    return halves.half(total(vectors))\n'
    ),
    "space/robust/halves.py": "def half(vectors):\n    return vectors / 2\n",
    "space/robust/unused.py": "NUMBER = 1\n",
    "space/sums.py": "def total(vectors):\n    return vectors.sum(1)\n",
}
DIGEST = (
    "import sys; from rdmdc.workflow.digest import digest;"
    "print(digest('rdmdc.workflow.stages.condense', sys.argv[1]))"
)


@pytest.fixture
def others(tmp_path):
    """A folder with a copy of this package, a package of others and a module of others."""
    ignored = shutil.ignore_patterns("__pycache__", "*.parquet")
    shutil.copytree(ROOT / "rdmdc", tmp_path / "rdmdc", ignore=ignored)
    for name, text in OTHERS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest_in(folder, module):
    run = subprocess.run(
        [sys.executable, "-B", "-c", DIGEST, module],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("module", "file", "change", "shows"),
    [
        ("mending.robust", "mending/robust.py", replacing("weigh(v", "-weigh(v"), True),
        ("mending.robust", "mending/inner/weights.py", replacing("/ 2", "/ 3"), True),
        ("mending.robust", "mending/inner/sums.py", replacing("sum(1)", "mean(1)"), True),
        ("mending.robust", "mending/__init__.py", lambda text: f"{text}\nimport torch\n", True),
        ("mending.robust", "mending/table.txt", replacing("3", "4"), True),
        ("mending.robust", "rdmdc/estimators/estimate.py", altering("mean_without_top"), True),
        ("mending.robust", "mending/robust.py", replacing("Robust.", "More robust."), False),
        ("mending.robust", "mending/inner/weights.py", said_otherwise, False),
        ("mending.robust", "mending/unused.py", replacing("1", "2"), False),
        ("mending.robust", "alone.py", replacing("3", "4"), False),
        ("mending.robust", "rdmdc/estimators/median.py", altering("median"), False),
        ("alone", "alone.py", replacing("3", "4"), True),
        ("alone", "rdmdc/rates.py", altering("count"), True),
        ("alone", "alone.py", replacing("Alone.", "All alone."), False),
        ("alone", "mending/robust.py", replacing("weigh(v", "-weigh(v"), False),
        ("alone", "rdmdc/estimators/median.py", altering("median"), False),
        ("single", "single_sums.py", replacing("sum(1)", "mean(1)"), True),
        ("single", "single_tables/__init__.py", replacing("/ 2", "/ 3"), True),
        ("single", "single_sums.py", lambda text: f"# a comment\n{text}", False),
        ("single", "single_types.py", replacing("1", "2"), False),
        ("single", "library.py", replacing("+ 0", "+ 1"), False),
        ("single", "alone.py", replacing("3", "4"), False),
        ("alone", "single_sums.py", replacing("sum(1)", "mean(1)"), False),
        ("space.robust.halved", "space/robust/halves.py", replacing("/ 2", "/ 3"), True),
        ("space.robust.halved", "space/sums.py", replacing("sum(1)", "mean(1)"), True),
        ("space.robust.halved", "space/robust/unused.py", replacing("1", "2"), False),
        ("space.robust.halved", "library.py", replacing("+ 0", "+ 1"), False),
    ],
)
def test_a_plugin_of_others(others, module, file, change, shows):
    before = digest_in(others, module)
    path = others / file
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    assert (digest_in(others, module) != before) == shows


def test_a_file_beside_need_not_be_text(others):
    path = others / "mending/table.txt"
    path.write_bytes(bytes(range(256)))
    before = digest_in(others, "mending.robust")
    path.write_bytes(bytes(range(255)))
    assert digest_in(others, "mending.robust") != before


# --- itself ----------------------------------------------------------------------------------


def test_form_of_a_digest():
    made = digest.digest("rdmdc.workflow.stages.condense", "rdmdc.estimators.mean")
    assert re.fullmatch("[0-9a-f]{16}", made)
    again = ("rdmdc.estimators.mean", "rdmdc.workflow.stages.condense", "rdmdc.estimators.mean")
    assert digest.digest(*again) == made


def test_a_helper_that_cannot_be_parsed_is_told(others):
    (others / "single_sums.py").write_text("def total(:\n")
    with pytest.raises(AssertionError, match=r"DigestError: .*single_sums.py line 1: .*; mend it"):
        digest_in(others, "single")


def test_compiled_code_counts_as_it_is(others):
    (others / "single_sums.py").unlink()
    path = others / f"single_sums{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"\x7fELF 1")
    before = digest_in(others, "single")
    path.write_bytes(b"\x7fELF 2")
    assert digest_in(others, "single") != before


@pytest.mark.parametrize("name", ["rdmdc.nowhere", "rdmdc.estimators.nowhere", "no_such_package.x"])
def test_an_unknown_module_is_told(name):
    with pytest.raises(digest.DigestError, match=f"there is no module '{name}'"):
        digest.digest(name)


def test_a_digest_imports_nothing():
    code = (
        "import sys; from rdmdc.workflow.digest import digest;"
        "digest('rdmdc.workflow.stages.condense', 'rdmdc.condensers.dm');"
        "sys.exit('torch' in sys.modules or 'rdmdc.condensers.dm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
