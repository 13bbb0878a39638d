"""What a preset may say: the schema, the checks that it cannot make, and each job's options."""

import ast
import inspect
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from rdmdc.workflow import presets as conditions
from rdmdc.attacks.crafting import ATTACKS, OPTIMISERS, Crafting
from rdmdc.models.augment import OPERATIONS
from rdmdc.condensers.dm import INITIALISATIONS, Condensation
from rdmdc.workflow.presets import ConfigError
from rdmdc.estimators.means import ESTIMATORS
from rdmdc.sources.files import LAYOUTS, SOURCES
from rdmdc.models.training import Schedule

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PRESETS = [p for p in (ROOT / "config.yaml", *sorted(ROOT.glob("config/*.yaml"))) if p.is_file()]
SMOKE = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
SCHEMA_CONTENT = yaml.safe_load(SCHEMA.read_text())
GONE = object()


def edited(*edits):
    """The smoke preset with values set, or taken away, at paths such as "condense.ipc"."""
    config = deepcopy(SMOKE)
    for path, value in edits:
        *sections, key = path.split(".")
        place = config
        for section in sections:
            place = place[section]
        if value is GONE:
            del place[key]
        else:
            place[key] = value
    return config


def within(path):
    """What the schema says at a path."""
    place = SCHEMA_CONTENT
    for key in path.split("."):
        place = place[key]
    return place


# --- the schema ------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_are_sound(preset):
    config = yaml.safe_load(preset.read_text())
    validate(config, str(SCHEMA))
    conditions.check(config)
    assert config == yaml.safe_load(preset.read_text()), "no defaults are filled in"


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA_CONTENT)


REFUSED = [
    ("sed", 1, "'sed' was unexpected"),
    ("condense.icp", 2, "'icp' was unexpected"),
    ("dataset.colour", "rgb", "'colour' was unexpected"),
    ("dataset.layout", "class_folders", "'layout' was unexpected"),
    ("dataset.name", GONE, "'name' is a required property"),
    ("dataset.source", "zip", "'zip' is not one of"),
    ("dataset.size", 0, r"\['dataset'\]\['size'\]"),
    ("dataset.per_class", {"train": 0, "test": 1}, r"\['dataset'\]\['per_class'\]"),
    ("dataset.classes", ["Symbols", "Symbols"], r"\['dataset'\]\['classes'\]"),
    ("runs", GONE, "'runs' is a required property"),
    ("condense.momentum", GONE, "'momentum' is a required property"),
    ("estimators.rdm_dc.power_iterations", GONE, "'power_iterations' is a required property"),
    ("estimators.rdm_dc.drop", GONE, "'drop' is a required property"),
    ("estimators.dm.drop", "1/10", r"\['dm'\]\['drop'\]"),
    ("estimators.dm.power_iterations", 3, r"\['dm'\]\['power_iterations'\]"),
    ("estimators.dm.function", "krum", "'krum' is not one of"),
    ("estimators.rdm_dc.drop", 0.3, r"0.3 is not of type 'string'[\s\S]*\['drop'\]"),
    ("estimators.rdm_dc.drop", "-1/10", r"'-1/10' does not match[\s\S]*\['drop'\]"),
    ("conditions.dm_64.eps", 256, r"256 is greater than[\s\S]*\['eps'\]"),
    ("conditions.dm_64.eps", -1, r"-1 is less than[\s\S]*\['eps'\]"),
    ("conditions.dm_64.poisons", 0.1, r"\['dm_64'\]\['poisons'\]"),
    ("conditions.dm_64.poisons", 0, r"\['dm_64'\]\['poisons'\]"),
    ("conditions.dm_64.attack", "feature_collision", "'feature_collision' is not one of"),
    ("conditions.dm_64.attacks", "dm", "'attacks' was unexpected"),
    ("conditions.DM 64", SMOKE["conditions"]["clean"], "'DM 64' does not match"),
    ("conditions.clean.panels", ["all", "all"], "non-unique"),
    ("threads", 0, r"0 is less than[\s\S]*\['threads'\]"),
    ("threads", "two", r"'two' is not of type 'integer'[\s\S]*\['threads'\]"),
    ("compile", 1, r"1 is not of type 'boolean'[\s\S]*\['compile'\]"),
    ("condense", None, r"None is not of type 'object'[\s\S]*\['condense'\]"),
    ("condense.learning_rate", 0, r"\['condense'\]\['learning_rate'\]"),
    ("condense.initialisation", "zeros", "'zeros' is not one of"),
    ("network.depth", 9, r"\['network'\]\['depth'\]"),
    ("augmentation", ["jitter"], "'jitter' is not one of"),
    ("attacks.dm.optimiser", "adam", "'adam' is not one of"),
    ("attacks.dm.clean_batch", 8, "'clean_batch' was unexpected"),
    ("attacks.untargeted.clean_batch", GONE, "'clean_batch' is a required property"),
    ("targets", [], r"\['targets'\]"),
    ("targets", [-1], r"\['targets'\]\[0\]"),
    ("targets", [{"seed": 1, "index": 3}], r"\['targets'\]\[0\]"),
    ("pretrain.decay_after", 0.5, r"\['pretrain'\]\['decay_after'\]"),
    ("evaluate.networks", 0, r"\['evaluate'\]\['networks'\]"),
    ("tables.first", SMOKE["tables"]["table1"], "'first' does not match"),
    ("panels.pair", [], r"\['panels'\]\['pair'\]"),
    ("figures.run", -1, r"\['figures'\]\['run'\]"),
]


@pytest.mark.parametrize(("path", "value", "fault"), REFUSED)
def test_the_schema_refuses_and_names_the_key(path, value, fault):
    with pytest.raises(WorkflowError, match=fault):
        validate(edited((path, value)), str(SCHEMA))


@pytest.mark.parametrize("section", [k for k in SMOKE if k not in ("preset", "pretrain")])
def test_every_section_is_required_and_none_may_be_misspelt(section):
    with pytest.raises(WorkflowError, match=f"'{section}' is a required property"):
        validate(edited((section, GONE)), str(SCHEMA))
    with pytest.raises(WorkflowError, match=f"'{section}x' was unexpected"):
        validate(edited((section + "x", SMOKE[section])), str(SCHEMA))


def names(record):
    return {field.name for field in fields(record)}


@pytest.mark.parametrize(
    ("path", "offered"),
    [
        ("$defs.augmentation.items.enum", set(OPERATIONS) - {"identity"}),
        ("$defs.crafting.optimiser.enum", OPTIMISERS),
        ("$defs.condense.properties.initialisation.enum", INITIALISATIONS),
        ("$defs.condense.properties", names(Condensation)),
        ("properties.condense.required", names(Condensation)),
        ("properties.estimators.additionalProperties.properties.function.enum", ESTIMATORS),
        ("properties.conditions.additionalProperties.properties.attack.enum", {*ATTACKS, "none"}),
        ("properties.attacks.properties", set(ATTACKS) - {"direct"}),
        ("properties.attacks.properties.dm.required", names(Crafting) - {"eps", "clean_batch"}),
        ("properties.attacks.properties.untargeted.required", names(Crafting) - {"eps"}),
        ("properties.pretrain.required", names(Schedule)),
        ("properties.evaluate.required", names(Schedule) | {"networks"}),
        ("properties.dataset.properties.source.enum", SOURCES),
        ("properties.dataset.properties.layout.enum", LAYOUTS),
    ],
)
def test_the_schema_offers_what_the_package_has(path, offered):
    assert set(within(path)) == set(offered)
    assert len(within(path)) == len(offered)


def test_estimators_take_the_options_that_the_config_gives_them():
    taken = {
        name: {p.name for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for name, f in ESTIMATORS.items()
    }
    offered = within("properties.estimators.additionalProperties.properties")
    assert set.union(*taken.values()) == set(offered) - {"label", "function"}
    given = {"drop": "3/10", "power_iterations": 3}
    for name, options in taken.items():
        own = {"label": "x", "function": name, **{option: given[option] for option in options}}
        validate(edited(("estimators.x", own)), str(SCHEMA))
        for option in given:
            wrong = {k: v for k, v in own.items() if k != option}
            if option not in own:
                wrong[option] = given[option]
            with pytest.raises(WorkflowError, match=option):
                validate(edited(("estimators.x", wrong)), str(SCHEMA))


# --- what the schema cannot see --------------------------------------------------------------

FAULTS = [
    ([("estimators.dm.label", "RDM-DC")], r"estimators\.rdm_dc: its label .RDM-DC. is that of"),
    (
        [("conditions.dm_64.targets", [1])],
        r"figures\.target: dm_64 has no target of seed 0; it has 1",
    ),
    ([("conditions.gm_64.targets", [1])], None),
    ([("conditions.gm_64.targets", [1, 7])], r"gm_64\.targets: \[7\] are not among"),
    ([("panels.pair", ["dm", "krum"])], r"panels\.pair: no estimators entry is named 'krum'"),
    ([("estimators.rdm_dc.drop", "1")], r"estimators\.rdm_dc: drop 1 takes 16 .* lower it"),
    ([("estimators.rdm_dc.drop", "15/16")], None),
    ([("estimators.rdm_dc.drop", "3/2")], r"estimators\.rdm_dc: '3/2' is outside 0\.\.1"),
    (
        [("estimators.rdm_dc.drop", "9/10"), ("conditions.clean.condense", {"batch": 5})],
        r"estimators\.rdm_dc: drop 9/10 takes 5 of a batch of 5",
    ),
    (
        [("conditions.clean.eps", 3)],
        r"conditions\.clean: without an attack eps, poisons, clean and targets",
    ),
    ([("conditions.dm_64.poisons", GONE)], r"conditions\.dm_64: an attack needs poisons"),
    ([("conditions.dm_64.clean", GONE)], r"conditions\.dm_64: .* name of a clean condition"),
    ([("conditions.dm_64.eps", GONE)], r"conditions\.dm_64: every attack needs eps"),
    ([("conditions.direct.eps", 64)], r"conditions\.direct: every attack needs eps but direct"),
    ([("attacks.dm", GONE)], r"conditions\.dm_64: attacks\.dm is missing"),
    ([("pretrain", GONE)], r"conditions\.gm_64: .* add the section pretrain"),
    ([("conditions.gm_64.network", {"width": 4})], r"conditions\.gm_64: .* leave network out"),
    (
        [("conditions.dm_64.network", {"width": 4})],
        r"conditions\.dm_64: its network differs from that of clean, .*; name a clean condition",
    ),
    ([("conditions.dm_64.condense", {"ipc": 4})], r"conditions\.dm_64: its condense differs"),
    ([(f"conditions.{name}_real.network", {"width": 4}) for name in ("clean", "dm_64")], None),
    ([("conditions.dm_64.clean", "dm_64_real")], r"'dm_64_real', which has an attack"),
    ([("conditions.dm_64.clean", "cleen")], r"dm_64: no conditions entry is named 'cleen'"),
    ([("conditions.dm_64.poisons", "3/2")], r"conditions\.dm_64\.poisons: '3/2' is outside"),
    ([("conditions.dm_64.poisons", "0")], r"conditions\.dm_64\.poisons: .* more than 0"),
    ([("conditions.dm_64.panels", ["alle"])], r"dm_64: no panels entry is named 'alle'; .* all"),
    (
        [("conditions.dm_64.panels", ["pair", "all"])],
        r"conditions\.dm_64: estimator dm is in panels pair and all",
    ),
    (
        [("conditions.dm_64.panels", ["pair"])],
        r"condition dm_64 does not run estimator median; add .* conditions\.dm_64\.panels",
    ),
    ([("conditions.clean.panels", ["pair"])], "condition clean does not run estimator median"),
    ([("tables.table1.rows", [{"condition": "x", "estimators": ["dm"]}])], r"tables\.table1: no"),
    (
        [("tables.table1.rows", [{"condition": "clean", "estimators": ["dm"]}])],
        r"tables\.table1: clean has no attack to report",
    ),
    ([("tables.table1.reference", "DM")], r"tables\.table1\.reference: no estimators .* 'DM'"),
    ([("targets", [0, {"seed": 0, "index": 3, "adversarial_label": 1}])], r"listed twice.*\[0, 0"),
    ([("pretrain.decay_after", "3/2")], r"pretrain\.decay_after: '3/2' is outside"),
    ([("evaluate.decay_after", "3/2")], r"evaluate\.decay_after: '3/2' is outside"),
    ([("figures.condition", "x")], r"figures\.condition: no conditions entry is named 'x'"),
    ([("figures.condition", "clean")], r"figures\.condition: clean has no poisons"),
    ([("figures.table", "table9")], r"figures\.table: no tables entry is named 'table9'"),
    ([("figures.target", 2)], r"figures\.target: dm_64 has no target of seed 2; it has 0, 1"),
    ([("figures.run", 1)], r"figures\.run: 1 is outside 0\.\.0"),
]


@pytest.mark.parametrize(("edits", "fault"), FAULTS)
def test_check(edits, fault):
    config = edited(*edits)
    validate(config, str(SCHEMA))
    if fault is None:
        conditions.check(config)
    else:
        with pytest.raises(ConfigError, match=fault):
            conditions.check(config)


def test_every_fault_that_the_module_knows_is_among_these():
    tree = ast.parse(Path(conditions.__file__).read_text())
    known = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    met = set()
    for edits, _ in FAULTS:
        try:
            conditions.check(edited(*edits))
        except ConfigError as error:
            trace = error.__traceback__
            while trace.tb_next:
                trace = trace.tb_next
            met.add(trace.tb_lineno)
    assert met == known


def test_gradient_matching_alone_needs_victims():
    edits = [(f"conditions.{name}", GONE) for name in ("gm_64",)]
    edits += [("tables.table1.rows", SMOKE["tables"]["table2"]["rows"]), ("tables.table3", GONE)]
    config = edited(("pretrain", GONE), *edits)
    validate(config, str(SCHEMA))
    conditions.check(config)


# --- names and options -----------------------------------------------------------------------


def test_cases():
    assert conditions.target_seeds(SMOKE) == [0, 1]
    assert conditions.cases(SMOKE, "clean") == ["clean"]
    assert conditions.cases(SMOKE, "gm_64") == ["gm_64/target=0", "gm_64/target=1"]
    for name in SMOKE["conditions"]:
        assert {conditions.condition_of(c) for c in conditions.cases(SMOKE, name)} == {name}


def test_panels():
    assert conditions.panel_of(SMOKE, "clean", "rdm_dc") == "all"
    assert conditions.panel_of(SMOKE, "direct", "rdm_dc") == "pair"
    assert conditions.conditions_of_panel(SMOKE, "all") == ["clean", "dm_64"]


def test_resolved_lays_a_conditions_keys_over_the_presets():
    config = edited(("conditions.direct.condense", {"ipc": 7}), ("conditions.direct.network", {}))
    made = conditions.resolved(config, "direct")
    assert made["condense"] == {**SMOKE["condense"], "ipc": 7}
    assert made["network"] == SMOKE["network"]
    assert {k: v for k, v in made.items() if k != "condense"} == {
        k: v for k, v in config.items() if k != "condense"
    }
    assert conditions.resolved(config, "clean") == config
    assert config["condense"] == SMOKE["condense"]


def test_options_say_what_the_job_needs():
    assert conditions.target_options(SMOKE, 0)["target"] == {"seed": 0}
    assert conditions.target_options(SMOKE, 1)["target"] == SMOKE["targets"][1]
    assert conditions.pretrain_options(SMOKE, 1)["pretrain"] == {**SMOKE["pretrain"], "epochs": 1}
    assert "crafting" not in conditions.poison_options(SMOKE, "direct", 0)
    crafting = conditions.poison_options(SMOKE, "dm_64", 0)["crafting"]
    assert crafting == {**SMOKE["attacks"]["dm"], "eps": 64}
    estimators = conditions.synthetic_options(SMOKE, "clean", 0, "pair")["estimators"]
    assert list(estimators) == ["dm", "rdm_dc"]
    assert estimators["rdm_dc"] == {
        "function": "spectral_mean",
        "drop": "3/10",
        "power_iterations": 3,
    }
    rows = conditions.table_options(SMOKE, "table5")["rows"]
    assert [row["instance"] for row in rows] == ["dm", "rdm_dc"]
    assert rows[1] == {
        "condition": "direct",
        "clean": "clean",
        "instance": "rdm_dc",
        "method": "RDM-DC",
        "attack": "Direct",
        "eps": None,
    }


JOBS = {
    "data": conditions.data_options,
    "target": lambda c: conditions.target_options(c, 1),
    "victim": lambda c: conditions.pretrain_options(c, 1),
    "poison": lambda c: conditions.poison_options(c, "dm_64", 0),
    "synthetic": lambda c: conditions.synthetic_options(c, "dm_64/target=0", 0, "all"),
    "scores": lambda c: conditions.scores_options(c, "dm_64/target=0", 0, "all"),
    "table": lambda c: conditions.table_options(c, "table2"),
}
COMPUTING = {"victim", "poison", "synthetic", "scores"}
EXTRA = {"label": "Extra", "function": "mean"}


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        ("estimators.extra", EXTRA, set()),
        ("estimators.rdm_dc.drop", "1/10", {"synthetic"}),
        ("estimators.rdm_dc.label", "Ours", {"table"}),
        ("panels.extra", ["dm"], set()),
        ("panels.all", ["dm", "rdm_dc"], {"synthetic", "scores"}),
        ("conditions.gm_64.eps", 8, set()),
        ("conditions.dm_64.eps", 8, {"poison", "table"}),
        ("conditions.dm_64.poisons", 2, {"poison"}),
        ("conditions.dm_64.label", "DM", {"table"}),
        ("conditions.dm_64.condense", {"ipc": 3}, {"synthetic"}),
        ("conditions.dm_64.network", {"width": 3}, {"poison", "synthetic", "scores"}),
        ("conditions.clean.condense", {"ipc": 3}, set()),
        ("tables.table3", GONE, set()),
        ("tables.table2.title", "Another", {"table"}),
        ("description", "Another", {"table"}),
        ("figures.run", 3, set()),
        ("targets", [{**SMOKE["targets"][1], "index": 4}, 0, 9], {"target"}),
        ("runs", 2, set()),
        ("pretrain.momentum", 0.5, {"victim"}),
        ("pretrain.epochs", [1, 7], set()),
        ("attacks.dm.step", 2, {"poison"}),
        ("attacks.untargeted", GONE, set()),
        ("condense.ipc", 3, {"synthetic"}),
        ("augmentation", ["flip"], {"synthetic"}),
        ("evaluate.epochs", 3, {"scores"}),
        ("evaluate.networks", 3, {"scores"}),
        ("dataset.size", 8, {"data", "target"} | COMPUTING),
        ("network.width", 3, COMPUTING),
        ("seed", 5, COMPUTING),
        ("threads", 2, COMPUTING),
        ("precision", "bfloat16", {"poison", "synthetic"}),
    ],
)
def test_an_edit_changes_the_options_of_these_jobs_only(path, value, jobs):
    config = edited((path, value))
    assert {name for name, of in JOBS.items() if of(config) != of(SMOKE)} == jobs


@pytest.mark.parametrize("job", JOBS)
def test_options_as_an_argument(job):
    line = conditions.as_argument(JOBS[job](SMOKE))
    assert "\n" not in line
    assert json.loads(line) == JOBS[job](SMOKE)
    shuffled = dict(reversed(JOBS[job](SMOKE).items()))
    assert conditions.as_argument(shuffled) == line


def test_importing_conditions_costs_neither_torch_nor_pyarrow():
    code = (
        "import sys, rdmdc.conditions; sys.exit(not {'torch', 'pyarrow'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
