# What the rules share: the checked preset, wildcards, and names of files.

import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

sys.path.insert(0, workflow.basedir)

from rdmdc.workflow import presets as conditions, resources
from rdmdc.workflow.presets import as_argument
from rdmdc.workflow.digest import digest
from rdmdc.errors import InputError

PYTHON = sys.executable

try:
    validate(config, "../schemas/config.schema.yaml")
except WorkflowError as error:
    fault = error.__context__  # validate's own message holds the whole schema and the whole config
    key = ".".join(str(step) for step in fault.absolute_path) or "top level"
    raise WorkflowError(f"preset {config.get('preset')}: {key}: {fault.message}") from None
try:
    conditions.check(config)
except InputError as error:
    raise WorkflowError(f"preset {config['preset']}: {error}") from None

PRESET = config["preset"]
# the default preset's tables and figures lie at the top, where its user looks for them
SHOWN = "results" if PRESET == "default" else f"results/{PRESET}"


wildcard_constraints:
    preset=PRESET,
    condition="|".join(config["conditions"]),
    target=r"\d+",
    run=r"\d+",
    epochs=r"\d+",


def case_pattern(panel):
    """A regular expression of the cases that run a panel."""
    attacked = {True: r"/target=\d+", False: ""}
    return "|".join(
        name + attacked[config["conditions"][name]["attack"] != "none"]
        for name in conditions.conditions_of_panel(config, panel)
    )


def poisons_of(wildcards):
    """The poisons of a case; a clean one has none."""
    if config["conditions"][conditions.condition_of(wildcards.case)]["attack"] == "none":
        return []
    return f"results/{PRESET}/{wildcards.case}/poisons.parquet"


def victims_of(wildcards):
    """The victims that a condition's attack wants."""
    if config["conditions"][wildcards.condition]["attack"] != "gradient_matching":
        return []
    return expand(
        "results/{preset}/victims/epochs={epochs}.safetensors",
        preset=PRESET,
        epochs=config["pretrain"]["epochs"],
    )


def targets_of(wildcards):
    """The targets that a case is scored on: its own, or all."""
    name, _, target = wildcards.case.partition("/target=")
    seeds = [target] if target else conditions.target_seeds(config)
    return expand("results/{preset}/targets/{target}.parquet", preset=PRESET, target=seeds)


def scores_of(table):
    """All score files of a table's rows, with their clean conditions'."""
    rows = conditions.table_options(config, table)["rows"]
    return sorted(
        {
            f"results/{PRESET}/{case}/run={run}/{row['instance']}.scores.parquet"
            for row in rows
            for condition in (row["condition"], row["clean"])
            for case in conditions.cases(config, condition)
            for run in range(config["runs"])
        }
    )


def table_scores(wildcards):
    """Inputs of a table; a table that the preset lacks is an error that names those it has."""
    if wildcards.table not in config["tables"]:
        raise WorkflowError(
            f"preset {PRESET} defines no {wildcards.table}; it has: {', '.join(all_tables())}"
        )
    return scores_of(wildcards.table)


def default_table(wildcards):
    """No input: another preset's run cannot make the default preset's table, but has its own."""
    raise WorkflowError(
        f"results/{wildcards.table}.csv is the default preset's (leave --configfile out); preset"
        f" {PRESET} has: {', '.join(all_tables())}"
    )


def all_tables(form="csv"):
    return [f"{SHOWN}/{table}.{form}" for table in config["tables"]]


def all_figures():
    names = ["targets", "poisons", "synthetic", "accuracy_asr"]
    return expand("{shown}/figures/{name}.{form}", shown=SHOWN, name=names, form=["png", "svg"])


def shown_condition():
    """The condition that the figures show."""
    return config["conditions"][config["figures"]["condition"]]


def shown_case():
    """The case that the figures show."""
    return f"{config['figures']['condition']}/target={config['figures']['target']}"


def shown_instances():
    """All estimator instances of the condition that the figures show."""
    panels = shown_condition()["panels"]
    return [instance for panel in panels for instance in config["panels"][panel]]
