"""The options of each job: all that its result depends on besides its input files and code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rdmdc.workflow import presets
from rdmdc.workflow.presets import Config, ConfigError

COMMON = ("dataset", "seed", "device", "threads", "compile")


def as_argument(options: Mapping[str, Any]) -> str:
    """Options as one line of JSON: the job's argument, which its artifacts record."""
    return json.dumps(options, sort_keys=True)


def _common(config: Config, condition: str | None = None) -> dict[str, Any]:
    network = presets.network_of(config, condition).as_argument()
    return {**{key: config[key] for key in COMMON}, "network": network}


def data(config: Config) -> dict[str, Any]:
    """Options of decoding the data set, with the content of one that the package holds."""
    source = presets.source_of(config)
    content = source.plugin.facts["content"](source.options)
    return {"dataset": config["dataset"], **({"content": content} if content else {})}


def target(config: Config, seed: int) -> dict[str, Any]:
    """Options of a target: its seed, or what the preset lists of it. Raises ConfigError."""
    entries = {presets.target_seed(entry): entry for entry in config["targets"]}
    if seed not in entries:
        listed = ", ".join(map(str, entries)) or "none"
        raise ConfigError(f"targets: none has the seed {seed} (there are {listed})")
    entry = entries[seed]
    own = {"seed": seed} if isinstance(entry, int) else dict(entry)
    return {"dataset": config["dataset"], "target": own}


def victim(config: Config, epochs: int) -> dict[str, Any]:
    """Options of a victim: trained so many epochs."""
    return {**_common(config), "pretrain": {**config["pretrain"], "epochs": epochs}}


def poison(config: Config, condition: str, target: int) -> dict[str, Any]:
    """Options of crafting a condition's poisons for a target. Raises ConfigError."""
    attack = presets.crafting_of(config, condition)
    options = {
        **_common(config, condition),
        "attack": attack.as_argument(),
        "poisons": config["conditions"][condition]["poisons"],
        "target": target,
    }
    if attack.plugin.options is not None and not attack.plugin.facts["victims"]:
        # not for victims, since gradient matching differentiates by their weights
        options["precision"] = config["precision"]
    return options


def screen(config: Config, case: str, name: str) -> dict[str, Any]:
    """Options of screening a case's training set."""
    return {
        **_common(config, presets.condition_of(case)),
        "case": case,
        "precision": config["precision"],
        "augmentation": config["augmentation"],
        "screen": presets.chosen(config, "screen", name, "screens").as_argument(),
    }


def condense(config: Config, case: str, run: int, panel: str) -> dict[str, Any]:
    """Options of condensing a case by a panel's methods."""
    condition, methods = presets.condition_of(case), config["panels"][panel]
    estimators = {name: presets.estimator_of(config, name) for name in methods}
    return {
        **_common(config, condition),
        "case": case,
        "run": run,
        "precision": config["precision"],
        "augmentation": config["augmentation"],
        "screen": presets.screen_of(config, methods[0]).as_argument(),
        "condenser": presets.condenser_of(config, methods[0], condition).as_argument(),
        "estimators": {
            name: None if chosen is None else chosen.as_argument()
            for name, chosen in estimators.items()
        },
    }


def evaluate(config: Config, case: str, run: int, panel: str) -> dict[str, Any]:
    """Options of evaluating a panel's sets of a case."""
    evaluate = dict(config["evaluate"])
    networks = {
        name: {
            "trained": trained,
            "network": presets.network_named(config, name, "evaluate.networks").as_argument(),
        }
        for name, trained in evaluate.pop("networks").items()
    }
    return {
        **{key: config[key] for key in COMMON},
        "case": case,
        "run": run,
        "evaluate": evaluate,
        "networks": networks,
        "methods": config["panels"][panel],
    }


def table(config: Config, name: str) -> dict[str, Any]:
    """Options of a table: a row for each condition, method and architecture, and what it prints."""
    table, rows = config["tables"][name], []
    for row in table["rows"]:
        condition = config["conditions"][row["condition"]]
        attack = presets.attack_of(config, row["condition"])
        rows += [
            {
                "condition": row["condition"],
                "clean": condition["clean"],
                "method": method,
                "label": config["methods"][method]["label"],
                "architecture": architecture,
                "attack": condition["label"],
                "eps": None if attack is None else attack.values.get("eps"),
            }
            for method in row["methods"]
            for architecture in config["evaluate"]["networks"]
        ]
    return {
        "preset": config["preset"],
        "title": table["title"],
        "note": config["description"],
        "reference": table["reference"],
        "rows": rows,
    }
