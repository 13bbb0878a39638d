# What the rules share: the checked preset, wildcards, and names of files.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.current_basedir).parents[1]))

from rdmdc.errors import InputError
from rdmdc.workflow.planning import lazily

with lazily("torch", "pandas", "scipy"):
    from rdmdc.workflow import checks, job_options, presets, resources
    from rdmdc.workflow.completing import complete
    from rdmdc.workflow.digest import digest
    from rdmdc.workflow.job_options import as_argument

    PYTHON = sys.executable
    try:
        config = complete(config)
        checks.check(config)
    except InputError as error:
        raise WorkflowError(f"preset {config.get('preset')}: {error}") from None

PRESET = config["preset"]
# the default preset's tables and figures lie at the top, where its user looks for them
SHOWN = "results" if PRESET == "default" else f"results/{PRESET}"
STAGES = "rdmdc.workflow.stages"


wildcard_constraints:
    preset=PRESET,
    condition="|".join(config["conditions"]),
    target=r"\d+",
    run=r"\d+",
    epochs=r"\d+",
    screen=r"[a-z][a-z0-9_]*",


def is_attacked(condition):
    return config["conditions"][condition]["attack"] != "none"


def pattern_of(names):
    """A regular expression of the cases of some conditions."""
    return "|".join(name + (r"/target=\d+" if is_attacked(name) else "") for name in names)


def poisons_of(wildcards):
    """The poisons of a case; a clean one has none."""
    if not is_attacked(presets.condition_of(wildcards.case)):
        return []
    return f"results/{PRESET}/{wildcards.case}/poisons.safetensors"


def screening_of(panel):
    """The screening that a panel's methods use; the screen `none` keeps all and has no file."""
    name = config["methods"][config["panels"][panel][0]]["screen"]
    return [] if name == "none" else f"results/{{preset}}/{{case}}/screens/{name}.parquet"


def clean_case(wildcards, panel):
    """The clean case of which an attacked one takes over classes that it leaves as they are."""
    condition = presets.condition_of(wildcards.case)
    own = config["conditions"][condition]
    if not is_attacked(condition) or not presets.takes_over(config, condition, panel):
        return None
    return own["clean"]


def clean_sets(panel):
    """The clean case's sets and traces of a panel's methods, where they help."""

    def files(wildcards):
        case = clean_case(wildcards, panel)
        return [
            f"results/{PRESET}/{case}/run={wildcards.run}/{method}{part}"
            for method in config["panels"][panel]
            for part in (".safetensors", ".trace.parquet")
            if case is not None
        ]

    return files


def clean_screening(panel):
    """The clean case's screening that goes with its sets."""

    def files(wildcards):
        name = config["methods"][config["panels"][panel][0]]["screen"]
        case = clean_case(wildcards, panel)
        if case is None or name == "none":
            return []
        return f"results/{PRESET}/{case}/screens/{name}.parquet"

    return files


def victims_of(wildcards):
    """The victims that a condition's attack needs."""
    try:
        attack = presets.crafting_of(config, wildcards.condition)
    except InputError as error:
        raise WorkflowError(f"preset {PRESET}: {error}") from None
    if not attack.plugin.facts["victims"]:
        return []
    return expand(
        "results/{preset}/victims/epochs={epochs}.safetensors",
        preset=PRESET,
        epochs=config["pretrain"]["epochs"],
    )


def target_options(wildcards):
    """Options of a target's job; a seed that the preset lacks is an error."""
    try:
        return as_argument(job_options.target(config, int(wildcards.target)))
    except InputError as error:
        raise WorkflowError(f"preset {PRESET}: {error}") from None


def targets_of(wildcards):
    """The targets that a case is scored on: its own, or all."""
    name, _, target = wildcards.case.partition("/target=")
    seeds = [target] if target else presets.target_seeds(config)
    return expand("results/{preset}/targets/{target}.safetensors", preset=PRESET, target=seeds)


def scores_of(table):
    """All score files of a table's rows, with their clean conditions'."""
    rows = job_options.table(config, table)["rows"]
    return sorted(
        {
            f"results/{PRESET}/{case}/run={run}/{row['method']}.scores.parquet"
            for row in rows
            for condition in (row["condition"], row["clean"])
            for case in presets.cases(config, condition)
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


def is_matrix(table):
    """Whether a table has several conditions and methods, so that a heat map of them says more."""
    rows = config["tables"][table]["rows"]
    return len(rows) > 1 and len({method for row in rows for method in row["methods"]}) > 1


def all_figures():
    if config["figures"] is None:
        return []
    matrices = [f"{table}.matrix" for table in config["tables"] if is_matrix(table)]
    names = ["targets", "poisons", "synthetic", "accuracy_asr", *matrices]
    return expand("{shown}/figures/{name}.{form}", shown=SHOWN, name=names, form=["png", "svg"])


def all_sets():
    """Every condensed set with its scores, for a preset that has no tables to ask for them."""
    return [
        f"results/{PRESET}/{case}/run={run}/{method}.scores.parquet"
        for condition, own in config["conditions"].items()
        for case in presets.cases(config, condition)
        for run in range(config["runs"])
        for panel in own["panels"]
        for method in config["panels"][panel]
    ]


def shown_case():
    """The case that the figures show."""
    return f"{config['figures']['condition']}/target={config['figures']['target']}"


def shown_methods():
    """All methods of the condition that the figures show."""
    panels = config["conditions"][config["figures"]["condition"]]["panels"]
    return [method for panel in panels for method in config["panels"][panel]]
