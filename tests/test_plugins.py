"""Plug-ins: how they are found, what is told of those that fail, and planning without torch."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import outside
import pytest
import scale

from rdmdc import plugins
from rdmdc.plugins import KINDS, PluginError, get, load

ROOT = Path(__file__).parents[1]

PLANNING = """
import sys, time
import yaml

# --- as in workflow/rules/common.smk ---
from rdmdc.errors import InputError
from rdmdc.workflow.planning import lazily

with lazily("torch", "pandas", "scipy"):
    from rdmdc.workflow import checks, job_options, presets, resources
    from rdmdc.workflow.completing import complete
    from rdmdc.workflow.digest import digest

    config = complete(yaml.safe_load(open(sys.argv[1])))
    checks.check(config)

# --- as the rules ask ---
for condition in config["conditions"]:
    for case in presets.cases(config, condition):
        for panel in config["conditions"][condition]["panels"]:
            job_options.condense(config, case, 0, panel)
            resources.memory_mb(config, resources.condense(config, condition, panel), 1)
            resources.minutes(config, resources.evaluate(config, condition, panel), 1)
digest("rdmdc.workflow.stages.condense", "rdmdc.condensers.dm")
print(sorted({"torch._C", "pandas", "scipy", "pyarrow", "matplotlib"} & set(sys.modules)))
print(time.process_time())
"""


def python(code, *arguments, path=()):
    """Run Python on this package, with further folders on its path; all that it says."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def listing(*path):
    """What `rdmdc plugins` prints, and its exit code."""
    run = subprocess.run(
        [sys.executable, "-m", "rdmdc", "plugins"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))},
        capture_output=True,
        text=True,
    )
    return run.stdout.splitlines(), run.returncode, run.stderr


# --- the package's own -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "folder"), KINDS.items())
def test_every_file_with_the_decorator_is_found(kind, folder):
    written = {
        name
        for path in (ROOT / "rdmdc" / folder).glob("*.py")
        for name in re.findall(
            rf"^@plugins\.{kind}\(.*\)\ndef (\w+)", path.read_text(), re.MULTILINE
        )
    }
    assert set(load(kind).plugins) == written
    assert not load(kind).broken
    for name, plugin in load(kind).plugins.items():
        assert (plugin.kind, plugin.name) == (kind, name)
        assert plugin.module == f"rdmdc.{folder}.{name}", "one file each, of the same name"
        assert plugin.summary


def test_a_plugin_is_called_like_its_function():
    @plugins.estimator()
    def twice(vectors, generators, options):
        """Twice the vectors.

        And more.
        """
        return 2 * vectors

    assert twice(3, [], None) == 6
    assert twice.summary == "Twice the vectors."
    assert twice.facts == {"across_classes": False}


def test_an_unknown_name_lists_those_there_are_and_the_nearest():
    with pytest.raises(PluginError) as caught:
        get("estimator", "medain", "methods.dm.estimator")
    said = str(caught.value)
    assert said.startswith(
        "methods.dm.estimator: no estimator is named 'medain'; did you mean median? (there are "
    )
    assert all(name in said for name in load("estimator").plugins)
    with pytest.raises(PluginError, match=r"no network is named 'zzz' \(there are alexnet, "):
        get("network", "zzz", "network")


def test_the_list_names_every_kind_with_a_line_each():
    lines, code, _ = listing()
    assert code == 0
    assert [line for line in lines if not line.startswith("  ")] == list(KINDS.values())
    for kind, section in KINDS.items():
        start = lines.index(section) + 1
        own = load(kind).plugins
        assert lines[start : start + len(own)] == [
            f"  {name}: {own[name].summary}" for name in sorted(own)
        ]
    assert len(lines) == sum(len(load(kind).plugins) for kind in KINDS) + len(KINDS)


# --- planning --------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["config.yaml", "config/smoke.yaml", "config/paper.yaml"])
def test_planning_loads_no_torch_and_is_fast(preset):
    loaded, seconds = python(PLANNING, ROOT / preset).splitlines()
    assert loaded == "[]"
    assert float(seconds) < 2.5  # of a processor; importing torch alone takes as long


def test_the_rules_plan_as_the_test_above_does():
    rules = (ROOT / "workflow/rules/common.smk").read_text()
    for line in re.search(r"# --- as in .*?\n(.*?)\n    config", PLANNING, re.DOTALL)[1].split(
        "\n"
    ):
        assert line in rules.split("\n")


EAGER = {
    "eager.py": (
        "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
        "from rdmdc import plugins\nfrom rdmdc.estimators.estimate import Estimate\n\n"
        "LAYER = nn.Linear(2, 2)\nZERO = torch.zeros(1)\n\n\n"
        "@plugins.estimator()\n@torch.no_grad()\n"
        "def eager(vectors, generators, options):\n"
        '    """Imports all of torch at once."""\n'
        "    return Estimate(F.relu(vectors.mean(1) + ZERO), None)\n"
    ),
    "eager-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: eager\nVersion: 1\n",
    "eager-1.dist-info/entry_points.txt": "[rdmdc.estimators]\neager = eager:eager\n",
}


def test_a_plugin_that_imports_torch_at_once_still_works(tmp_path):
    """It makes planning slower, and whatever was bound to a placeholder before still works."""
    code = (
        "import sys\nfrom rdmdc.workflow.planning import lazily\nfrom rdmdc import plugins\n"
        "with lazily('torch', 'pandas', 'scipy'):\n"
        "    found = {kind: plugins.load(kind) for kind in plugins.KINDS}\n"
        "assert 'torch._C' in sys.modules\n"
        "assert not any(f.broken for f in found.values())\n"
        "import torch\n"
        "vectors = torch.arange(6.0).view(1, 3, 2)\n"
        "for name in ('eager', 'mean', 'median'):\n"
        "    print(found['estimator'].plugins[name](vectors, [], None).value.tolist())\n"
    )
    said = python(code, path=[outside.write(tmp_path, EAGER)])
    assert said == "[[2.0, 3.0]]\n" * 3


def test_a_placeholder_loads_its_package_at_the_first_use():
    code = (
        "import sys\nfrom rdmdc.workflow.planning import lazily\n"
        "with lazily('decimal', 'no_such_package', 'json'):\n"
        "    import decimal\n"
        "    import decimal as again\n"
        "    assert 'Decimal' not in vars(sys.modules['decimal'])\n"
        "assert 'decimal' not in sys.modules\n"
        "print(decimal.Decimal('1') + again.Decimal(1))\n"
        "import decimal as real\n"
        "assert real.Decimal is decimal.Decimal\n"
    )
    assert python(code) == "2\n"


@pytest.mark.slow
def test_a_dry_run_of_2500_cells_costs_seconds():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    scale.dry_run(2500)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    )  # of a processor


# --- other packages' -------------------------------------------------------------------------


def test_another_packages_plugins_are_listed_with_its_name(tmp_path):
    lines, code, _ = listing(outside.write(tmp_path, outside.FILES))
    assert code == 0
    for line in (
        "  brighten [halfway]: Brighter images of the adversarial class.",
        "  darkest [halfway]: Keep the darkest images.",
        "  middle [halfway]: Halfway between the lowest and the highest.",
        "  pooled [halfway]: One layer with ReLU.",
        "  prototypes [halfway]: One image a class: the estimate of the class's mean pixels.",
        "  stripes [halfway]: Noisy stripes: rows, columns and none.",
    ):
        assert line in lines


BROKEN = {
    "does not import": ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named"),
    "raises": ("raise SystemError('one\\ntwo')\n", "SystemError: one two"),
    "has no such name": ("other = 1\n", "AttributeError: module 'faulty' has no attribute 'wrong'"),
    "no plug-in": ("def wrong():\n    pass\n", "faulty:wrong is no function decorated with plug"),
    "another kind": (
        "from rdmdc import plugins\n\n\n@plugins.screen()\ndef wrong():\n    '''A screen.'''\n",
        "PluginError: faulty:wrong is no function decorated with plugins.estimator",
    ),
    "another name": (
        "from rdmdc import plugins\n\n\n@plugins.estimator()\ndef right():\n    '''Right.'''\n\n\n"
        "wrong = right\n",
        "PluginError: faulty:wrong is named right, its entry point wrong",
    ),
}


@pytest.mark.parametrize(("source", "fault"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_cannot_be_had_is_told_where_it_is_used_and_breaks_nothing(
    tmp_path, source, fault
):
    files = {
        "faulty.py": source,
        "faulty-2.dist-info/METADATA": "Metadata-Version: 2.1\nName: faulty-wares\nVersion: 2\n",
        "faulty-2.dist-info/entry_points.txt": "[rdmdc.estimators]\nwrong = faulty:wrong\n",
    }
    folder = outside.write(tmp_path, files)
    lines, code, _ = listing(folder)
    assert code == 1
    told = f"cannot be imported: package faulty-wares: .*{re.escape(fault)}"
    assert [line for line in lines if re.match(f"  wrong: {told}", line)]
    assert f"  mean: {load('estimator').plugins['mean'].summary}" in lines
    assert f"  dm: {load('condenser').plugins['dm'].summary}" in lines
    code = (
        "from rdmdc import plugins\n"
        "print(plugins.get('estimator', 'mean', 'here').name)\n"
        "try:\n    plugins.get('estimator', 'wrong', 'here')\n"
        "except plugins.PluginError as error:\n    print(error)\n"
    )
    first, second = python(code, path=[folder]).splitlines()
    assert first == "mean"
    assert re.match(f"here: the estimator 'wrong' {told}", second)


def test_two_plugins_of_one_name_are_told_with_their_modules(tmp_path):
    files = {
        "twin.py": (
            "from rdmdc import plugins\n\n\n@plugins.estimator()\n"
            "def median(vectors, generators, options):\n    '''Another.'''\n"
        ),
        "twin-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: twin\nVersion: 1\n",
        "twin-1.dist-info/entry_points.txt": "[rdmdc.estimators]\nmedian = twin:median\n",
    }
    _, code, said = listing(outside.write(tmp_path, files))
    assert code == 1
    assert said == (
        "rdmdc plugins: two estimators are named 'median', in rdmdc.estimators.median and in twin;"
        " rename or uninstall one\n"
    )
