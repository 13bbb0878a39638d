"""What a preset may say: its keys, what contradicts itself, and each job's options."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from rdmdc import plugins
from rdmdc.errors import InputError
from rdmdc.models.training import Schedule
from rdmdc.options import fields
from rdmdc.workflow import checks, job_options, keys, presets
from rdmdc.workflow.completing import complete
from rdmdc.workflow.job_options import as_argument

ROOT = Path(__file__).parents[1]
PRESETS = [ROOT / "config.yaml", *sorted(ROOT.glob("config/*.yaml"))]
SMOKE = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
GONE = object()


def edited(*edits, config=SMOKE):
    """A copy of the preset with values set, or taken away, at paths such as "condensers.dm.ipc"."""
    config = deepcopy(config)
    for path, value in edits:
        *sections, key = path.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        if value is GONE:
            del place[key]
        else:
            place[key] = value
    return config


def checked(config):
    """The complete preset, as the workflow reads it."""
    full = complete(config)
    checks.check(full)
    return full


def fault_of(config):
    """The one line that a faulty preset is told in."""
    with pytest.raises(InputError) as caught:
        checked(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_are_sound(preset):
    config = yaml.safe_load(preset.read_text())
    before = deepcopy(config)
    full = checked(config)
    assert config == before, "checking changes nothing"
    assert {key: full[key] for key in ("condensers", "evaluate", "dataset")} == {
        key: config[key] for key in ("condensers", "evaluate", "dataset")
    }, "no defaults are filled in"


REFUSED = [
    ("sed", 1, "preset: unknown option 'sed'; did you mean seed?"),
    ("condensers.dm.icp", 2, "condensers.dm: unknown option 'icp'; did you mean ipc?"),
    ("dataset.colour", "rgb", "dataset: unknown option 'colour'"),
    ("dataset.layout", "class_folders", "dataset: unknown option 'layout'"),
    ("dataset.name", GONE, "dataset: option 'name' is missing"),
    ("dataset.source", GONE, "dataset: source is missing; name one such as embedded"),
    ("dataset.source", "zip", "dataset.source: no source is named 'zip' (there are embedded, fol"),
    ("dataset.size", 0, "dataset.size: 0 must be a whole number, at least 1"),
    ("dataset.normalisation", "foo", "dataset.normalisation: 'foo' must be training_split, or"),
    ("dataset.normalisation", {"mean": [0.5]}, "must be training_split, or lists mean and std"),
    ("dataset.normalisation", {"mean": 1, "std": [1]}, "dataset.normalisation.mean: 1 must be a"),
    ("tables.table1.rows", [], "tables.table1.rows: a table needs at least one row"),
    ("dataset.per_class", {"train": 0, "test": 1}, "dataset.per_class.train: 0 must be"),
    ("dataset.classes", ["Symbols", "Symbols"], "dataset.classes: 'Symbols' is listed twice"),
    ("runs", GONE, "preset: option 'runs' is missing: condensations for each target"),
    ("runs", 0, "preset.runs: 0 must be a whole number, at least 1"),
    ("condensers.dm.momentum", GONE, "condensers.dm: option 'momentum' is missing"),
    ("condensers.dm", GONE, "condensers.dm: option 'ipc' is missing: M, synthetic images per"),
    ("estimators.spectral_mean.power_iterations", GONE, "option 'power_iterations' is missing"),
    ("estimators.spectral_mean.drop", GONE, "estimators.spectral_mean: option 'drop' is missing"),
    ("estimators.mean", {"drop": "1/10"}, "estimators.mean: unknown option 'drop' (options: none)"),
    ("estimators.krum", {}, "no estimator is named 'krum'"),
    ("methods.dm.estimator", "krum", "methods.dm.estimator: no estimator is named 'krum'"),
    (
        "methods.dm.screen",
        "nune",
        "methods.dm.screen: no screen is named 'nune'; did you mean none?",
    ),
    ("methods.dm.condenser", "dmm", "methods.dm.condenser: no condenser is named 'dmm'"),
    ("methods.dm.label", GONE, "methods.dm: option 'label' is missing"),
    ("methods.dm", "mean", "methods.dm: 'mean' is not a section"),
    ("estimators.spectral_mean.drop", 0.3, "estimators.spectral_mean.drop: 0.3 is no fraction"),
    ("estimators.spectral_mean.drop", "-1/10", "'-1/10' is outside 0..1"),
    ("conditions.dm_64.eps", 256, "attacks.dm_poison.eps: 256 must be"),
    ("conditions.dm_64.eps", -1, "attacks.dm_poison.eps: -1 must be"),
    ("conditions.dm_64.eps", GONE, "attacks.dm_poison: option 'eps' is missing"),
    ("conditions.direct.eps", 64, "conditions.direct: unknown key 'eps'"),
    ("conditions.dm_64.poisons", 0.1, "conditions.dm_64.poisons: 0.1 must be"),
    ("conditions.dm_64.poisons", "3/2", "conditions.dm_64.poisons: '3/2' is outside 0..1"),
    ("conditions.dm_64.attack", "feature_collision", "no attack is named 'feature_collision'"),
    ("conditions.dm_64.attacks", "dm", "unknown key 'attacks'; did you mean attack?"),
    ("conditions.DM 64", SMOKE["conditions"]["clean"], "conditions: 'DM 64' is no name"),
    ("conditions.clean.panels", ["all", "all"], "conditions.clean.panels: 'all' is listed twice"),
    ("threads", 0, "preset.threads: 0 must be a whole number, at least 1"),
    ("threads", "two", "preset.threads: 'two' must be a whole number, at least 1"),
    ("compile", 1, "preset.compile: 1 must be true or false"),
    ("condensers", None, "preset.condensers: None is not a section"),
    ("condensers.dm.learning_rate", 0, "condensers.dm.learning_rate: 0 must be a number, above 0"),
    ("condensers.dm.initialisation", "zeros", "'zeros' must be text, one of noise, real"),
    ("networks.convnet.depth", 9, "networks.convnet.depth: 9 must be"),
    ("network", "vgg", "network: no networks entry is named 'vgg' (there are convnet"),
    ("augmentation", ["jitter"], "preset.augmentation: 'jitter' must be"),
    ("attacks.dm_poison.optimiser", "adam", "attacks.dm_poison.optimiser: 'adam' must be"),
    ("attacks.dm_poison.clean_batch", 8, "attacks.dm_poison: unknown option 'clean_batch'"),
    ("attacks.untargeted.clean_batch", GONE, "attacks.untargeted: option 'clean_batch' is missing"),
    ("targets", [-1], "preset.targets: -1 must be"),
    ("targets", [{"seed": 1, "index": 3}], "preset.targets: option 'adversarial_label' is missing"),
    ("pretrain.decay_after", 0.5, "pretrain.decay_after: 0.5 is no fraction"),
    ("pretrain.epochs", [], "pretrain.epochs: list the epochs of each victim"),
    ("pretrain.epochs", [1, 1], "pretrain.epochs: list the epochs of each victim, each once"),
    ("evaluate.networks", 0, "evaluate.networks: it must say how many networks of each name"),
    ("evaluate.networks", {"convnet": 0}, "evaluate.networks.convnet: 0 must be at least 1"),
    ("evaluate.networks", {"resnet18": 2}, "evaluate.networks: no networks entry is named"),
    ("evaluate.momentum", 1, "evaluate.momentum: 1 must be a number, at least 0, below 1"),
    ("tables.first", SMOKE["tables"]["table1"], "tables: 'first' is no name; it must match table"),
    ("tables.table1.rows", [{"condition": "dm_64"}], "tables.table1.rows: option 'methods' is"),
    ("panels.pair", [], "panels.pair: list names of methods, each once"),
    ("panels.pair", ["dm", "dm"], "panels.pair: list names of methods, each once"),
    ("figures.run", -1, "preset.figures.run: -1 must be a whole number, at least 0"),
    ("cluster.gflops", 0, "preset.cluster.gflops: 0 must be a number, above 0"),
    ("preset", "My preset", "preset: 'My preset' is no name"),
]


@pytest.mark.parametrize(("path", "value", "fault"), REFUSED)
def test_a_bad_key_is_refused_and_named(path, value, fault):
    assert fault in fault_of(edited((path, value)))


@pytest.mark.parametrize("section", fields(keys.Preset))
def test_every_section_but_the_optional_ones_is_required_and_none_may_be_misspelt(section):
    assert f"unknown option '{section}x'; did you mean {section}?" in fault_of(
        edited((section + "x", SMOKE.get(section)))
    )
    config = deepcopy(SMOKE)
    config.pop(section, None)
    if section in keys.OPTIONAL:
        assert complete(config)[section] == keys.OPTIONAL[section]
    else:
        assert f"preset: option '{section}' is missing" in fault_of(config)


ODD = (None, True, -1, 0.5, "x", [], {}, [[]], [{}], {"x": 1})


def leaves(place, path=()):
    """The path to everything in a preset."""
    yield path
    entries = place.items() if isinstance(place, dict) else ()
    for key, value in entries:
        yield from leaves(value, (*path, key))


def test_whatever_stands_in_a_preset_is_sound_or_told_in_one_line():
    """Snakemake shows a traceback for what is no InputError."""
    refused = 0
    for path in list(leaves(SMOKE))[1:]:
        for odd in ODD:
            config = deepcopy(SMOKE)
            place = config
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = odd
            try:
                checked(config)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
            except Exception as error:
                raise AssertionError(f"{'.'.join(map(str, path))}: {odd!r}") from error
    assert refused > 800


# --- what contradicts itself -----------------------------------------------------------------

ORACLE = {"label": "Oracle", "screen": "oracle", "condenser": "dm", "estimator": "mean"}
HALF = {"label": "Half", "screen": "random", "condenser": "dm", "estimator": "mean"}
HARDLY = [
    ("screens.random", {"drop": "9/10"}),
    ("methods.half", HALF),
    ("panels.half", ["half"]),
    ("conditions.clean.panels", [*SMOKE["conditions"]["clean"]["panels"], "half"]),
]
FAULTS = [
    ([("methods.dm.label", "RDM-DC")], "methods.rdm_dc: its label 'RDM-DC' is that of dm too"),
    (
        [("conditions.dm_64.targets", [1])],
        "figures.target: dm_64 has no target of seed 0; it has 1",
    ),
    ([("conditions.gm_64.targets", [1])], None),
    ([("conditions.gm_64.targets", [1, 7])], "conditions.gm_64.targets: [7] are not among"),
    ([("panels.pair", ["dm", "krum"])], "panels.pair: no methods entry is named 'krum'"),
    ([("estimators.spectral_mean.drop", "1")], "estimators.spectral_mean: drop 1 takes 16 of"),
    ([("estimators.spectral_mean.drop", "15/16")], None),
    (
        [
            ("estimators.spectral_mean.drop", "9/10"),
            ("conditions.clean.condense", {"batch": 5}),
        ],
        "estimators.spectral_mean: drop 9/10 takes 5 of a batch of 5 and leaves none; lower it",
    ),
    # methods
    (
        [("methods.dm.estimator", None)],
        "methods.dm: condenser dm matches class means of embeddings; name an estimator of them",
    ),
    (
        [("methods.oracle", ORACLE), ("panels.pair", ["dm", "oracle"])],
        "panels.pair: its methods differ in screen or condenser; a panel runs in lockstep",
    ),
    (
        [
            ("condensers.other", {"use": "dm", **SMOKE["condensers"]["dm"]}),
            ("methods.other", {**ORACLE, "label": "Other", "screen": "none", "condenser": "other"}),
            ("panels.pair", ["dm", "other"]),
        ],
        "panels.pair: its methods differ in screen or condenser",
    ),
    (
        [("methods.oracle", ORACLE), ("panels.oracle", ["oracle"])],
        None,  # in a panel of its own
    ),
    (HARDLY, "screens.random: drop 9/10 leaves 4 of a class of 40 images, fewer than the batch"),
    ([*HARDLY, ("screens.random", {"drop": "24/40"})], None),
    (
        [
            ("screens.hardly", {"use": "random", "drop": "9/10"}),
            ("methods.half", {**HALF, "screen": "hardly"}),
            ("panels.half", ["half"]),
            ("conditions.clean_real.panels", ["pair", "half"]),
            ("conditions.clean_real.condense", {"batch": 4}),
            ("conditions.dm_64_real.condense", {"batch": 4}),
        ],
        None,
    ),
    (
        [("screens.none", {"use": "random", "drop": "1/10"})],
        "screens.none: the name none means that there is no screen; give it another",
    ),
    (
        [("attacks.none", {"use": "direct"})],
        "attacks.none: the name none means that there is no attack; give it another",
    ),
    # conditions
    ([("conditions.clean.eps", 3)], "conditions.clean: without an attack eps means nothing"),
    (
        [("conditions.clean.poisons", 3), ("conditions.clean.targets", [0])],
        "conditions.clean: without an attack poisons, targets mean nothing",
    ),
    ([("conditions.dm_64.poisons", GONE)], "conditions.dm_64: an attack needs poisons"),
    ([("conditions.dm_64.clean", GONE)], "conditions.dm_64: an attack needs poisons and the name"),
    ([("attacks.dm_poison", GONE)], "attacks.dm_poison: option 'step' is missing"),
    ([("pretrain", GONE)], "conditions.gm_64: gradient_matching needs victims; add the section"),
    ([("conditions.gm_64.network", "convnet")], "conditions.gm_64: victims have the preset's net"),
    (
        [("networks.small", {"use": "mlp", "hidden": 4}), ("conditions.dm_64.network", "small")],
        "conditions.dm_64: its network differs from that of clean",
    ),
    (
        [
            ("networks.small", {"use": "mlp", "hidden": 4}),
            *((f"conditions.{name}.network", "small") for name in ("clean_real", "dm_64_real")),
        ],
        None,
    ),
    ([("conditions.dm_64.network", "big")], "conditions.dm_64.network: no networks entry is named"),
    ([("conditions.dm_64.condense", {"ipc": 4})], "conditions.dm_64: its condense differs"),
    (
        [("conditions.clean.condense", {"icp": 4})],
        "condensers.dm: unknown option 'icp'; did you mean ipc?",
    ),
    ([("conditions.dm_64.clean", "dm_64_real")], "clean names 'dm_64_real', which has an attack"),
    ([("conditions.dm_64.clean", "cleen")], "conditions.dm_64: no conditions entry is named 'cle"),
    ([("conditions.dm_64.poisons", "0")], "conditions.dm_64.poisons: an attack poisons something"),
    ([("conditions.dm_64.poisons", 0)], "conditions.dm_64.poisons: an attack poisons something"),
    ([("conditions.dm_64.poisons", -3)], "conditions.dm_64.poisons: an attack poisons something"),
    ([("conditions.dm_64.panels", ["alle"])], "no panels entry is named 'alle'; did you mean all?"),
    (
        [("conditions.dm_64.panels", ["pair", "all"])],
        "conditions.dm_64: method dm is in panels pair and all",
    ),
    ([("targets", [])], "an attack needs targets; list seeds in targets"),
    (
        [("targets", [0, {"seed": 0, "index": 3, "adversarial_label": 1}])],
        "targets: a seed is listed twice in [0, 0]; remove one",
    ),
    # tables and figures
    (
        [("conditions.dm_64.panels", ["pair"])],
        "condition dm_64 does not run method median; add a panel that holds it to conditions.dm_64",
    ),
    ([("conditions.clean.panels", ["pair"])], "condition clean does not run method median"),
    (
        [("tables.table1.rows", [{"condition": "x", "methods": ["dm"]}])],
        "tables.table1: no conditions entry is named 'x'",
    ),
    (
        [("tables.table1.rows", [{"condition": "clean", "methods": ["dm"]}])],
        "tables.table1: clean has no attack to report",
    ),
    ([("tables.table1.reference", "DM")], "tables.table1.reference: no methods entry is named"),
    ([("pretrain.decay_after", "3/2")], "pretrain.decay_after: '3/2' is outside"),
    ([("evaluate.decay_after", "3/2")], "evaluate.decay_after: '3/2' is outside"),
    ([("figures.condition", "x")], "figures.condition: no conditions entry is named 'x'"),
    ([("figures.condition", "clean")], "figures.condition: clean has no poisons"),
    ([("figures.table", "table9")], "figures.table: no tables entry is named 'table9'"),
    ([("figures.target", 2)], "figures.target: dm_64 has no target of seed 2; it has 0, 1"),
    ([("figures.run", 1)], "figures.run: 1 is outside 0..0"),
]


@pytest.mark.parametrize(("edits", "fault"), FAULTS)
def test_check(edits, fault):
    config = edited(*edits)
    if fault is None:
        checked(config)
    else:
        assert fault in fault_of(config)


@pytest.fixture
def matching_nothing(monkeypatch):
    """A condenser that matches no class means stands beside the package's."""

    @plugins.condenser(None, matches=None)
    def pixels():
        """Condense without means."""

    found = plugins.load("condenser")
    more = plugins.Found({**found.plugins, "pixels": pixels}, found.broken)
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind: more if kind == "condenser" else load(kind))


def test_an_estimator_has_nothing_to_do_where_no_means_are_matched(matching_nothing):
    method = {"label": "Pixels", "screen": "none", "condenser": "pixels", "estimator": "mean"}
    panels = [*SMOKE["conditions"]["clean"]["panels"], "pixels"]
    edits = [("panels.pixels", ["pixels"]), ("conditions.clean.panels", panels)]
    assert (
        "methods.pixels: condenser pixels matches no class means, so that estimator 'mean' has"
        " nothing to estimate; leave it out"
    ) in fault_of(edited(("methods.pixels", method), *edits))
    del method["estimator"]
    full = checked(edited(("methods.pixels", method), *edits))
    options = job_options.condense(full, "clean", 0, "pixels")
    assert options["estimators"] == {"pixels": None}


def test_only_an_attack_on_victims_needs_them():
    config = edited(("pretrain", GONE), ("conditions.gm_64", GONE))
    for name, table in list(config["tables"].items()):
        rows = [row for row in table["rows"] if row["condition"] != "gm_64"]
        if rows:
            table["rows"] = rows
        else:
            del config["tables"][name]
    checked(config)


def smallest():
    """A preset without targets, attacks, tables and figures."""
    config = deepcopy(SMOKE)
    for section in keys.OPTIONAL.keys() - {"screens", "estimators"}:
        config.pop(section, None)
    config["conditions"] = {"clean": {"label": "None", "attack": "none", "panels": ["pair"]}}
    return config


def test_a_preset_needs_neither_targets_nor_attacks_nor_tables_nor_figures():
    full = checked(smallest())
    assert presets.cases(full, "clean") == ["clean"]
    assert presets.target_seeds(full) == []


# --- names and options -----------------------------------------------------------------------

FULL = complete(SMOKE)


def test_cases():
    assert presets.target_seeds(FULL) == [0, 1]
    assert presets.cases(FULL, "clean") == ["clean"]
    assert presets.cases(FULL, "gm_64") == ["gm_64/target=0", "gm_64/target=1"]
    for name in FULL["conditions"]:
        assert {presets.condition_of(c) for c in presets.cases(FULL, name)} == {name}


def test_panels():
    assert presets.panel_of(FULL, "clean", "rdm_dc") == "all"
    assert presets.panel_of(FULL, "direct", "rdm_dc") == "pair"
    assert presets.conditions_of_panel(FULL, "all") == ["clean", "dm_64"]


def test_an_entry_may_have_another_name_than_its_plugin():
    config = edited(
        ("estimators.gently", {"use": "spectral_mean", "drop": "1/10", "power_iterations": 2}),
        ("methods.rdm_dc.estimator", "gently"),
    )
    full = checked(config)
    chosen = presets.estimator_of(full, "rdm_dc")
    assert (chosen.name, chosen.plugin.name) == ("gently", "spectral_mean")
    options = job_options.condense(full, "clean", 0, "pair")["estimators"]["rdm_dc"]
    assert options == {"use": "spectral_mean", "drop": "1/10", "power_iterations": 2}


def test_a_condition_lays_its_options_over_its_condensers():
    full = checked(edited(("conditions.clean_real.condense", {"ipc": 7}), config=lonely("clean_")))
    made = presets.condenser_of(full, "dm", "clean_real").values
    assert made == {**SMOKE["condensers"]["dm"], "ipc": 7}
    assert presets.condenser_of(full, "dm", "clean").values == SMOKE["condensers"]["dm"]


def lonely(beginning):
    """The smoke preset without attacked conditions that are compared with such a clean one."""
    config = deepcopy(SMOKE)
    gone = [
        name
        for name, own in config["conditions"].items()
        if own.get("clean", "").startswith(beginning)
    ]
    for name in gone:
        del config["conditions"][name]
    for table in config["tables"].values():
        table["rows"] = [row for row in table["rows"] if row["condition"] not in gone]
    return config


def test_options_say_what_the_job_needs():
    assert job_options.target(FULL, 0)["target"] == {"seed": 0}
    assert job_options.target(FULL, 1)["target"] == SMOKE["targets"][1]
    assert job_options.victim(FULL, 1)["pretrain"] == {**SMOKE["pretrain"], "epochs": 1}
    assert job_options.poison(FULL, "direct", 0)["attack"] == {"use": "direct"}
    crafting = job_options.poison(FULL, "dm_64", 0)["attack"]
    assert crafting == {"use": "dm_poison", **SMOKE["attacks"]["dm_poison"], "eps": 64}
    estimators = job_options.condense(FULL, "clean", 0, "pair")["estimators"]
    assert list(estimators) == ["dm", "rdm_dc"]
    assert estimators["dm"] == {"use": "mean"}
    assert estimators["rdm_dc"] == {"use": "spectral_mean", "drop": "3/10", "power_iterations": 3}
    rows = job_options.table(FULL, "table5")["rows"]
    methods = SMOKE["tables"]["table5"]["rows"][0]["methods"]
    assert [(row["method"], row["architecture"]) for row in rows] == [
        (method, name) for method in methods for name in SMOKE["evaluate"]["networks"]
    ]
    assert rows[2] == {
        "condition": "direct",
        "clean": "clean",
        "method": "rdm_dc",
        "label": "RDM-DC",
        "architecture": "convnet",
        "attack": "Direct",
        "eps": None,
    }


JOBS = {
    "data": job_options.data,
    "target": lambda c: job_options.target(c, 1),
    "victim": lambda c: job_options.victim(c, 1),
    "poison": lambda c: job_options.poison(c, "dm_64", 0),
    "screen": lambda c: job_options.screen(c, "dm_64/target=0", "oracle"),
    "condense": lambda c: job_options.condense(c, "dm_64/target=0", 0, "all"),
    "evaluate": lambda c: job_options.evaluate(c, "dm_64/target=0", 0, "all"),
    "table": lambda c: job_options.table(c, "table2"),
}
CRAFTED = {"victim", "poison", "screen", "condense"}
COMPUTING = CRAFTED | {"evaluate"}
EXTRA = {"label": "Extra", "screen": "none", "condenser": "dm", "estimator": "mean"}


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        ("methods.extra", EXTRA, set()),
        ("methods.rdm_dc.label", "Ours", {"table"}),
        ("methods.rdm_dc.estimator", "mean", {"condense"}),
        ("estimators.spectral_mean.drop", "1/10", {"condense"}),
        ("estimators.geometric_median", {"iterations": 3}, set()),
        ("screens.random", {"drop": "1/4"}, set()),
        ("panels.extra", ["dm"], set()),
        ("panels.all", ["dm", "rdm_dc"], {"condense", "evaluate"}),
        ("conditions.gm_64.eps", 8, set()),
        ("conditions.dm_64.eps", 8, {"poison", "table"}),
        ("conditions.dm_64.poisons", 2, {"poison"}),
        ("conditions.dm_64.label", "DM", {"table"}),
        ("conditions.dm_64.condense", {"ipc": 3}, {"condense"}),
        ("conditions.dm_64.network", "small", {"poison", "screen", "condense"}),
        ("conditions.clean.condense", {"ipc": 3}, set()),
        ("tables.table3", GONE, set()),
        ("tables.table2.title", "Another", {"table"}),
        ("description", "Another", {"table"}),
        ("figures.run", 3, set()),
        ("targets", [{**SMOKE["targets"][1], "index": 4}, 0, 9], {"target"}),
        ("runs", 2, set()),
        ("pretrain.momentum", 0.5, {"victim"}),
        ("pretrain.epochs", [1, 7], set()),
        ("attacks.dm_poison.step", 2, {"poison"}),
        ("attacks.untargeted", GONE, set()),
        ("condensers.dm.ipc", 3, {"condense"}),
        ("augmentation", ["flip"], {"screen", "condense"}),
        ("evaluate.epochs", 3, {"evaluate"}),
        ("evaluate.networks.convnet", 3, {"evaluate"}),
        ("evaluate.networks.small", 1, {"evaluate", "table"}),
        ("dataset.size", 8, {"data", "target"} | COMPUTING),
        ("networks.convnet.width", 3, COMPUTING),
        ("network", "small", CRAFTED),
        ("seed", 5, COMPUTING),
        ("threads", 2, COMPUTING),
        ("checkpoint_minutes", 2, set()),
        ("cluster.gflops", 2, set()),
        ("precision", "bfloat16", {"poison", "screen", "condense"}),
    ],
)
def test_an_edit_changes_the_options_of_these_jobs_only(path, value, jobs):
    small = ("networks.small", {"use": "mlp", "hidden": 4})
    before = complete(edited(small))
    after = complete(edited(small, (path, value)))
    assert {name for name, of in JOBS.items() if of(before) != of(after)} == jobs


@pytest.mark.parametrize("job", JOBS)
def test_options_as_an_argument(job):
    line = as_argument(JOBS[job](FULL))
    assert "\n" not in line
    assert json.loads(line) == json.loads(json.dumps(JOBS[job](FULL)))
    shuffled = dict(reversed(JOBS[job](FULL).items()))
    assert as_argument(shuffled) == line


def test_importing_the_package_costs_neither_torch_nor_pyarrow():
    code = "import sys, rdmdc; sys.exit(not {'torch', 'pyarrow'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_that_the_preset_does_not_have_is_told():
    with pytest.raises(InputError, match=r"targets: none has the seed 9 \(there are 0, 1\)"):
        job_options.target(FULL, 9)
    with pytest.raises(InputError, match=r"condition clean has no attack, .* those of .*dm_64"):
        job_options.poison(FULL, "clean", 0)


def test_messages_name_keys_that_there_are():
    """A word such as dataset.size in a text of the package is a key of a preset."""
    trained = {*fields(Schedule), "networks", "epochs"}
    sources = plugins.load("source").plugins.values()
    known = {
        "dataset": {
            "source",
            *fields(keys.Decoding),
            *(k for s in sources for k in fields(s.options)),
        },
        "pretrain": trained,
        "evaluate": trained,
        "figures": {*fields(keys.Figures)},
        "cluster": {*fields(keys.Cluster)},
        "network": {"draw", "embed"},  # its functions: the section has no keys
    }
    named = set()
    for path in (ROOT / "rdmdc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(rf"\b({'|'.join(known)})\.([a-z_]+)\b", node.value))
    named -= {("evaluate", "evaluate")}  # the module that the API's documentation names
    assert len(named) > 15
    assert {(section, key) for section, key in named if key not in known[section]} == set()
