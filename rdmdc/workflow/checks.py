"""Checks of a preset: the first contradiction is reported in one line, before any job starts."""

from __future__ import annotations

from typing import Any, TypeGuard

from rdmdc import rates
from rdmdc.models.training import Schedule
from rdmdc.options import build
from rdmdc.workflow import presets
from rdmdc.workflow.presets import Config, ConfigError


def check(config: Config) -> None:
    """Raise ConfigError, OptionError or PluginError for the first fault of a complete preset."""
    presets.source_of(config)
    presets.network_of(config)
    for name in config["networks"]:
        presets.network_named(config, name, "networks")
    for kind, section in (
        ("screen", "screens"),
        ("condenser", "condensers"),
        ("estimator", "estimators"),
    ):
        for name in config[section]:
            presets.chosen(config, kind, name, section)
    _check_normalisation(config["dataset"]["normalisation"])
    for kind, section in (("screen", "screens"), ("attack", "attacks")):
        if "none" in config[section]:
            raise ConfigError(
                f"{section}.none: the name none means that there is no {kind}; give it another"
            )
    _check_labels(config)
    _check_training(config)
    for panel, methods in config["panels"].items():
        _check_panel(config, panel, methods)
    for name in config["conditions"]:
        _check_condition(config, name)
    for name in config["tables"]:
        _check_table(config, name)
    seeds = presets.target_seeds(config)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"targets: a seed is listed twice in {seeds}; remove one")
    if config["figures"] is not None:
        _check_figures(config)


def _check_normalisation(wanted: Any) -> None:
    """Raise ConfigError unless it is training_split, or lists of the channels' mean and std."""
    if wanted == "training_split":
        return
    if not isinstance(wanted, dict) or set(wanted) != {"mean", "std"}:
        raise ConfigError(
            f"dataset.normalisation: {wanted!r} must be training_split, or lists mean and std"
        )
    for key, values in wanted.items():
        numbers = isinstance(values, list) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if not numbers:
            raise ConfigError(
                f"dataset.normalisation.{key}: {values!r} must be a list of numbers, one a channel"
            )


def _check_labels(config: Config) -> None:
    labels: dict[str, str] = {}
    for name, method in config["methods"].items():
        if (other := labels.setdefault(method["label"], name)) != name:
            raise ConfigError(
                f"methods.{name}: its label {method['label']!r} is that of {other} too, which"
                " tables and figures could not tell apart; give it another"
            )


def _check_training(config: Config) -> None:
    evaluate = dict(config["evaluate"])
    networks = evaluate.pop("networks", None)
    if not isinstance(networks, dict) or not networks:
        raise ConfigError(
            "evaluate.networks: it must say how many networks of each name are trained, for"
            " instance {convnet: 3}"
        )
    for name, number in networks.items():
        presets.network_named(config, name, "evaluate.networks")
        if type(number) is not int or number < 1:
            raise ConfigError(f"evaluate.networks.{name}: {number!r} must be at least 1")
    build(Schedule, evaluate, "evaluate")
    if config["pretrain"] is not None:
        pretrain = dict(config["pretrain"])
        epochs = pretrain.get("epochs")
        if not _are_different(epochs):
            raise ConfigError("pretrain.epochs: list the epochs of each victim, each once")
        for number in epochs:
            build(Schedule, {**pretrain, "epochs": number}, "pretrain")


def _are_different(values: object) -> TypeGuard[list[Any]]:
    """True for a list of at least one value, each of them once."""
    if not isinstance(values, list) or not values:
        return False
    return not any(value in values[:index] for index, value in enumerate(values))


def _check_panel(config: Config, panel: str, methods: object) -> None:
    where = f"panels.{panel}"
    if not _are_different(methods):
        raise ConfigError(f"{where}: list names of methods, each once")
    parts = []
    for name in methods:
        method = presets.entry(config, "methods", name, where)
        parts.append((method["screen"], method["condenser"]))
        presets.screen_of(config, name)
        estimator = presets.estimator_of(config, name)
        for condition in presets.conditions_of_panel(config, panel):
            condenser = presets.condenser_of(config, name, condition)
            matches = condenser.plugin.facts["matches"]
            if (estimator is None) != (matches is None):
                fault = (
                    f"condenser {condenser.name} matches no class means, so that estimator"
                    f" {method['estimator']!r} has nothing to estimate; leave it out"
                    if matches is None
                    else f"condenser {condenser.name} matches class means of {matches}; name an"
                    " estimator of them, such as mean"
                )
                raise ConfigError(f"methods.{name}: {fault}")
            _check_drop(config, name, condition)
    if len(set(parts)) > 1:
        raise ConfigError(
            f"{where}: its methods differ in screen or condenser; a panel runs in lockstep, so put"
            " those that differ into a panel of their own"
        )


def _check_drop(config: Config, method: str, condition: str) -> None:
    """Raise ConfigError where a drop empties a minibatch, or leaves a class too small for one."""
    batch = presets.condenser_of(config, method, condition).values.get("batch")
    estimator = presets.estimator_of(config, method)
    if batch is not None and estimator is not None and "drop" in estimator.values:
        try:
            rates.dropped(estimator.values["drop"], batch)
        except rates.RateError as error:
            raise ConfigError(f"estimators.{estimator.name}: {error}") from error
    screen = presets.screen_of(config, method)
    per_class = config["cluster"]["train"] // config["cluster"]["classes"]
    if batch is not None and "drop" in screen.values:
        left = per_class - rates.count(screen.values["drop"], per_class)
        if left < batch <= per_class:
            raise ConfigError(
                f"screens.{screen.name}: drop {screen.values['drop']} leaves {left} of a class of"
                f" {per_class} images, fewer than the batch of {batch}; lower one of them"
            )


def _check_condition(config: Config, name: str) -> None:
    where, own = f"conditions.{name}", config["conditions"][name]
    attack = presets.attack_of(config, name)
    presets.network_of(config, name)
    if attack is None:
        given = [key for key in ("poisons", "clean", "targets") if own[key] is not None]
        if given:
            raise ConfigError(f"{where}: without an attack {', '.join(given)} mean nothing")
    else:
        if own["poisons"] is None or own["clean"] is None:
            raise ConfigError(f"{where}: an attack needs poisons and the name of a clean condition")
        if attack.plugin.facts["victims"] and config["pretrain"] is None:
            raise ConfigError(f"{where}: {attack.name} needs victims; add the section pretrain")
        if attack.plugin.facts["victims"] and own["network"] is not None:
            raise ConfigError(f"{where}: victims have the preset's network; leave network out")
        clean = presets.entry(config, "conditions", own["clean"], where)
        if clean["attack"] != "none":
            raise ConfigError(f"{where}: clean names {own['clean']!r}, which has an attack")
        for key in ("condense", "network"):
            if own[key] != clean[key]:
                raise ConfigError(
                    f"{where}: its {key} differs from that of {own['clean']}, so the two cannot be"
                    " compared; name a clean condition with the same keys"
                )
        poisons = own["poisons"]
        if (poisons if isinstance(poisons, int) else rates.parse(poisons)) <= 0:
            raise ConfigError(f"{where}.poisons: an attack poisons something; choose more than 0")
        strange = set(own["targets"] or []) - set(presets.target_seeds(config))
        if strange:
            raise ConfigError(
                f"{where}.targets: {sorted(strange)} are not among the preset's targets"
            )
        if not config["targets"]:
            raise ConfigError(f"{where}: an attack needs targets; list seeds in targets")
    seen: dict[str, str] = {}
    for panel in own["panels"]:
        for method in presets.entry(config, "panels", panel, where):
            if method in seen:
                raise ConfigError(
                    f"{where}: method {method} is in panels {seen[method]} and {panel}; its file"
                    " can have one maker only"
                )
            seen[method] = panel


def _check_table(config: Config, name: str) -> None:
    table = config["tables"][name]
    where = f"tables.{name}"
    if not table["rows"]:
        raise ConfigError(f"{where}.rows: a table needs at least one row; name a condition")
    for row in table["rows"]:
        condition = presets.entry(config, "conditions", row["condition"], where)
        if condition["attack"] == "none":
            raise ConfigError(f"{where}: {row['condition']} has no attack to report")
        for method in row["methods"]:
            for shown in (row["condition"], condition["clean"]):
                presets.panel_of(config, shown, method)
    presets.entry(config, "methods", table["reference"], f"{where}.reference")


def _check_figures(config: Config) -> None:
    shown = config["figures"]
    condition = presets.entry(config, "conditions", shown["condition"], "figures.condition")
    if condition["attack"] == "none":
        raise ConfigError(
            f"figures.condition: {shown['condition']} has no poisons to show; name another"
        )
    presets.entry(config, "tables", shown["table"], "figures.table")
    seeds = condition["targets"] or presets.target_seeds(config)
    if shown["target"] not in seeds:
        raise ConfigError(
            f"figures.target: {shown['condition']} has no target of seed {shown['target']}; it has"
            f" {', '.join(map(str, seeds))}"
        )
    if shown["run"] >= config["runs"]:
        raise ConfigError(f"figures.run: {shown['run']} is outside 0..{config['runs'] - 1}")
