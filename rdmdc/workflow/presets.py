"""What a preset asks for: conditions × targets × runs × estimator instances, checked and resolved.

Snakemake imports this module at every start, so it imports neither torch nor pyarrow. A *case* is
a condition with its target: "clean", which serves every target, or "dm64/target=3".
"""

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from rdmdc import rates
from rdmdc.errors import InputError

Config = Mapping[str, Any]


class ConfigError(InputError):
    """A preset that contradicts itself; the message names the key, the fault and the remedy."""


DATA = Path(__file__).parents[1] / "datasets" / "emoji"
COMMON = ("dataset", "network", "seed", "device", "threads", "compile")


def check(config: Config) -> None:
    """Raise ConfigError for what the schema cannot see: names, rates and batches that clash."""
    _check_labels(config)
    _check_panels(config)
    for name, condition in config["conditions"].items():
        _check_condition(config, name, condition)
    for name, table in config["tables"].items():
        for row in table["rows"]:
            where = f"tables.{name}"
            condition = _entry(config, "conditions", row["condition"], where)
            if condition["attack"] == "none":
                raise ConfigError(f"{where}: {row['condition']} has no attack to report")
            for instance in row["estimators"]:
                for shown in (row["condition"], condition["clean"]):
                    panel_of(config, shown, instance)
        _entry(config, "estimators", table["reference"], f"tables.{name}.reference")
    seeds = target_seeds(config)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"targets: a seed is listed twice in {seeds}; remove one")
    for section in ("pretrain", "evaluate"):
        if section in config:
            _rate(config[section]["decay_after"], f"{section}.decay_after")
    _check_figures(config)


def _check_labels(config: Config) -> None:
    labels: dict[str, str] = {}
    for name, estimator in config["estimators"].items():
        if (other := labels.setdefault(estimator["label"], name)) != name:
            raise ConfigError(
                f"estimators.{name}: its label {estimator['label']!r} is that of {other} too, which"
                " tables and figures could not tell apart; give it another"
            )


def _entry(config: Config, section: str, name: str, where: str) -> Any:
    if name not in config[section]:
        raise ConfigError(
            f"{where}: no {section} entry is named {name!r}; there are"
            f" {', '.join(config[section]) or 'none'}"
        )
    return config[section][name]


def _rate(rate: str, where: str) -> Fraction:
    try:
        return rates.parse(rate)
    except rates.RateError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_figures(config: Config) -> None:
    shown = config["figures"]
    condition = _entry(config, "conditions", shown["condition"], "figures.condition")
    if condition["attack"] == "none":
        raise ConfigError(
            f"figures.condition: {shown['condition']} has no poisons to show; name another"
        )
    _entry(config, "tables", shown["table"], "figures.table")
    seeds = condition.get("targets", target_seeds(config))
    if shown["target"] not in seeds:
        raise ConfigError(
            f"figures.target: {shown['condition']} has no target of seed {shown['target']}; it has"
            f" {', '.join(map(str, seeds))}"
        )
    if shown["run"] >= config["runs"]:
        raise ConfigError(f"figures.run: {shown['run']} is outside 0..{config['runs'] - 1}")


def _check_panels(config: Config) -> None:
    for panel, names in config["panels"].items():
        for name in names:
            _entry(config, "estimators", name, f"panels.{panel}")


def _check_condition(config: Config, name: str, condition: Mapping[str, Any]) -> None:
    where = f"conditions.{name}"
    attack = condition["attack"]
    if attack == "none":
        if {"eps", "poisons", "clean", "targets"} & set(condition):
            raise ConfigError(
                f"{where}: without an attack eps, poisons, clean and targets mean nothing"
            )
    else:
        if {"poisons", "clean"} - set(condition):
            raise ConfigError(f"{where}: an attack needs poisons and the name of a clean condition")
        if ("eps" in condition) == (attack == "direct"):
            raise ConfigError(f"{where}: every attack needs eps but direct, which has none")
        if attack != "direct" and attack not in config["attacks"]:
            raise ConfigError(f"{where}: attacks.{attack} is missing: how to craft its poisons")
        if attack == "gradient_matching" and "pretrain" not in config:
            raise ConfigError(f"{where}: gradient_matching needs victims; add the section pretrain")
        if attack == "gradient_matching" and "network" in condition:
            raise ConfigError(f"{where}: victims have the preset's network; leave network out")
        clean = _entry(config, "conditions", condition["clean"], where)
        if clean["attack"] != "none":
            raise ConfigError(f"{where}: clean names {condition['clean']!r}, which has an attack")
        for section in ("condense", "network"):
            if resolved(config, name)[section] != resolved(config, condition["clean"])[section]:
                raise ConfigError(
                    f"{where}: its {section} differs from that of {condition['clean']}, so the two"
                    " cannot be compared; name a clean condition with the same keys"
                )
        poisons = condition["poisons"]
        if isinstance(poisons, str) and _rate(poisons, f"{where}.poisons") == 0:
            raise ConfigError(f"{where}.poisons: an attack poisons something; choose more than 0")
    strange = set(condition.get("targets", [])) - set(target_seeds(config))
    if strange:
        raise ConfigError(f"{where}.targets: {sorted(strange)} are not among the preset's targets")
    seen: dict[str, str] = {}
    for panel in condition["panels"]:
        for instance in _entry(config, "panels", panel, where):
            if instance in seen:
                raise ConfigError(
                    f"{where}: estimator {instance} is in panels {seen[instance]} and {panel}; its"
                    " file can have one maker only"
                )
            seen[instance] = panel
            estimator = config["estimators"][instance]
            if "drop" in estimator:
                batch = resolved(config, name)["condense"]["batch"]
                try:
                    rates.dropped(estimator["drop"], batch)
                except rates.RateError as error:
                    raise ConfigError(f"estimators.{instance}: {error}") from error


# --- names -----------------------------------------------------------------------------------


def target_seed(target: int | Mapping[str, Any]) -> int:
    """A target's seed, which names it: a bare number, or the key of a listed one."""
    return target if isinstance(target, int) else int(target["seed"])


def target_seeds(config: Config) -> list[int]:
    """The seeds of all targets."""
    return [target_seed(t) for t in config["targets"]]


def condition_of(case: str) -> str:
    """The condition's name in a case."""
    return case.split("/")[0]


def cases(config: Config, condition: str) -> list[str]:
    """A condition's cases: one for each of its targets, or the condition where it is clean."""
    own = config["conditions"][condition]
    if own["attack"] == "none":
        return [condition]
    return [f"{condition}/target={seed}" for seed in own.get("targets", target_seeds(config))]


def panel_of(config: Config, condition: str, instance: str) -> str:
    """The panel in which a condition runs an estimator instance; ConfigError where it does not."""
    for panel in config["conditions"][condition]["panels"]:
        if instance in config["panels"][panel]:
            return str(panel)
    raise ConfigError(
        f"condition {condition} does not run estimator {instance}; add a panel that holds it to"
        f" conditions.{condition}.panels"
    )


def conditions_of_panel(config: Config, panel: str) -> list[str]:
    """The conditions that run a panel."""
    return [name for name, c in config["conditions"].items() if panel in c["panels"]]


# --- options of jobs -------------------------------------------------------------------------


def resolved(config: Config, condition: str) -> dict[str, Any]:
    """The config with a condition's own condense and network keys laid over the preset's."""
    own = config["conditions"][condition]
    return {
        **config,
        "condense": {**config["condense"], **own.get("condense", {})},
        "network": {**config["network"], **own.get("network", {})},
    }


def _common(config: Config) -> dict[str, Any]:
    return {key: config[key] for key in COMMON}


def data_options(config: Config) -> dict[str, Any]:
    """Options of the data job, with the content of an embedded data set."""
    dataset = config["dataset"]
    files = sorted(DATA.glob(f"{dataset['name']}-*.parquet")) if "name" in dataset else []
    content = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {"dataset": dataset, **({"content": content} if content else {})}


def target_options(config: Config, seed: int) -> dict[str, Any]:
    """Options of a target's job."""
    entry = next(t for t in config["targets"] if target_seed(t) == seed)
    listed = {"seed": seed} if isinstance(entry, int) else dict(entry)
    return {"dataset": config["dataset"], "target": listed}


def pretrain_options(config: Config, epochs: int) -> dict[str, Any]:
    """Options of a victim's job: trained so many epochs."""
    schedule = {**config["pretrain"], "epochs": epochs}
    return {**_common(config), "pretrain": schedule}


def poison_options(config: Config, condition: str, target: int) -> dict[str, Any]:
    """Options of crafting a condition's poisons for a target."""
    own = config["conditions"][condition]
    options = {
        **_common(resolved(config, condition)),
        "attack": own["attack"],
        "poisons": own["poisons"],
        "target": target,
    }
    if own["attack"] in ("dm", "untargeted"):
        options["precision"] = config["precision"]
    if own["attack"] != "direct":
        options["crafting"] = {**config["attacks"][own["attack"]], "eps": own["eps"]}
    return options


def synthetic_options(config: Config, case: str, run: int, panel: str) -> dict[str, Any]:
    """Options of condensing a case with a panel's estimators."""
    settings = resolved(config, condition_of(case))
    return {
        **_common(settings),
        "case": case,
        "run": run,
        "precision": config["precision"],
        "augmentation": settings["augmentation"],
        "condense": settings["condense"],
        "estimators": {
            name: {k: v for k, v in config["estimators"][name].items() if k != "label"}
            for name in config["panels"][panel]
        },
    }


def scores_options(config: Config, case: str, run: int, panel: str) -> dict[str, Any]:
    """Options of evaluating a panel's sets of a case."""
    return {
        **_common(resolved(config, condition_of(case))),
        "case": case,
        "run": run,
        "evaluate": config["evaluate"],
        "instances": config["panels"][panel],
    }


def table_options(config: Config, name: str) -> dict[str, Any]:
    """Options of a table: a row for each condition and estimator, with what is printed of them."""
    table, rows = config["tables"][name], []
    for row in table["rows"]:
        condition = config["conditions"][row["condition"]]
        for instance in row["estimators"]:
            rows.append(
                {
                    "condition": row["condition"],
                    "clean": condition["clean"],
                    "instance": instance,
                    "method": config["estimators"][instance]["label"],
                    "attack": condition["label"],
                    "eps": condition.get("eps"),
                }
            )
    return {
        "preset": config["preset"],
        "title": table["title"],
        "note": config["description"],
        "reference": table["reference"],
        "rows": rows,
    }


def as_argument(options: Mapping[str, Any]) -> str:
    """Options as the one line of JSON that a job gets and its artifacts keep."""
    return json.dumps(options, sort_keys=True)
