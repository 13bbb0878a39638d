"""What a complete preset says: its entries with their plug-ins, its cases and panels.

Snakemake imports this module at every start; it does not load torch. A *case* is a condition with
its target: "clean", which serves every target, or "dm_64/target=3".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rdmdc import plugins
from rdmdc.errors import InputError
from rdmdc.options import build, fields
from rdmdc.plugins import KINDS, Plugin
from rdmdc.wording import nearest
from rdmdc.workflow import keys

Config = Mapping[str, Any]


class ConfigError(InputError):
    """A preset that contradicts itself; the message names the key, the fault and the remedy."""


@dataclass(frozen=True)
class Chosen:
    """A plug-in with the options that an entry of the preset gives it."""

    name: str
    plugin: Plugin
    values: Mapping[str, Any]

    @property
    def options(self) -> Any:
        """The options as the plug-in's record; OptionError where they do not fit."""
        return build(self.plugin.options, self.values, f"{KINDS[self.plugin.kind]}.{self.name}")

    def as_argument(self) -> dict[str, Any]:
        """What a job is told: the plug-in's name, and its options by name."""
        return {"use": self.plugin.name, **self.values}


# --- entries ---------------------------------------------------------------------------------


def entry(config: Config, section: str, name: str, where: str) -> Any:
    """An entry of a section; ConfigError names those that there are."""
    if not isinstance(name, str) or name not in config[section]:
        raise ConfigError(
            f"{where}: no {section} entry is named {name!r}{nearest(name, config[section])} (there"
            f" are {', '.join(config[section]) or 'none'})"
        )
    return config[section][name]


def plugin_named(config: Config, kind: str, name: str, where: str) -> Plugin:
    """The plug-in of an entry: ``use`` names it where the entry has another name."""
    section = KINDS[kind]
    entry = config[section].get(name, {})
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{section}.{name}: {entry!r} is not a section; write its keys below it")
    return plugins.get(kind, entry.get("use", name), f"{section}.{name}" if entry else where)


def chosen(
    config: Config, kind: str, name: str, where: str, further: Mapping[str, Any] | None = None
) -> Chosen:
    """The plug-in and the options of an entry; ``further`` options override the entry's.

    A plug-in without options needs no entry. Raises PluginError or OptionError.
    """
    plugin = plugin_named(config, kind, name, where)
    values = {key: v for key, v in config[KINDS[kind]].get(name, {}).items() if key != "use"}
    made = Chosen(name, plugin, {**values, **(further or {})})
    _ = made.options  # checked before any job starts
    return made


def attack_of(config: Config, condition: str) -> Chosen | None:
    """The attack of a condition with its options; None where it is clean."""
    own = config["conditions"][condition]
    if own["attack"] == "none":
        return None
    return chosen(config, "attack", own["attack"], f"conditions.{condition}.attack", own["options"])


def crafting_of(config: Config, condition: str) -> Chosen:
    """The attack of a condition that has one; ConfigError where it is clean."""
    attack = attack_of(config, condition)
    if attack is None:
        attacked = [name for name, own in config["conditions"].items() if own["attack"] != "none"]
        raise ConfigError(
            f"condition {condition} has no attack, and so no poisons; ask for those of"
            f" {', '.join(attacked) or 'a preset with attacks'}"
        )
    return attack


def screen_of(config: Config, method: str) -> Chosen:
    """The screen of a method."""
    name = entry(config, "methods", method, "methods")["screen"]
    return chosen(config, "screen", name, f"methods.{method}.screen")


def condenser_of(config: Config, method: str, condition: str) -> Chosen:
    """The condenser of a method, with what the condition changes of its options."""
    name = entry(config, "methods", method, "methods")["condenser"]
    changed = config["conditions"][condition]["condense"]
    return chosen(config, "condenser", name, f"methods.{method}.condenser", changed)


def estimator_of(config: Config, method: str) -> Chosen | None:
    """The estimator of a method; None where its condenser matches no means."""
    name = entry(config, "methods", method, "methods")["estimator"]
    if name is None:
        return None
    return chosen(config, "estimator", name, f"methods.{method}.estimator")


def network_of(config: Config, condition: str | None = None) -> Chosen:
    """The network that crafts, screens and condenses: the preset's, or a condition's own."""
    own = config["conditions"][condition]["network"] if condition is not None else None
    name = own or config["network"]
    where = "network" if own is None else f"conditions.{condition}.network"
    return network_named(config, name, where)


def network_named(config: Config, name: str, where: str) -> Chosen:
    """A network of the preset by its name."""
    entry(config, "networks", name, where)
    return chosen(config, "network", name, where)


def source_of(config: Config) -> Chosen:
    """The source of the data set with its own options."""
    dataset, decoding = config["dataset"], fields(keys.Decoding)
    if "source" not in dataset:
        raise ConfigError("dataset: source is missing; name one such as embedded or parquet")
    plugin = plugins.get("source", dataset["source"], "dataset.source")
    values = {k: v for k, v in dataset.items() if k != "source" and k not in decoding}
    made = Chosen("dataset", plugin, values)
    build(plugin.options, values, "dataset")
    build(keys.Decoding, {k: v for k, v in dataset.items() if k in decoding}, "dataset")
    return made


# --- names -----------------------------------------------------------------------------------


def target_seed(target: int | Mapping[str, Any]) -> int:
    """A target's seed, which names it: a bare number, or the key of a listed one."""
    return target if isinstance(target, int) else int(target["seed"])


def target_seeds(config: Config) -> list[int]:
    """The seeds of all targets."""
    return [target_seed(target) for target in config["targets"]]


def condition_of(case: str) -> str:
    """The condition's name in a case."""
    return case.split("/")[0]


def cases(config: Config, condition: str) -> list[str]:
    """A condition's cases: one for each of its targets, or the condition where it is clean."""
    own = config["conditions"][condition]
    if own["attack"] == "none":
        return [condition]
    seeds = target_seeds(config) if own["targets"] is None else own["targets"]
    return [f"{condition}/target={seed}" for seed in seeds]


def panel_of(config: Config, condition: str, method: str) -> str:
    """The panel in which a condition runs a method; ConfigError where it does not."""
    for panel in config["conditions"][condition]["panels"]:
        if method in config["panels"][panel]:
            return str(panel)
    raise ConfigError(
        f"condition {condition} does not run method {method}; add a panel that holds it to"
        f" conditions.{condition}.panels"
    )


def conditions_of_panel(config: Config, panel: str) -> list[str]:
    """The conditions that run a panel."""
    return [name for name, own in config["conditions"].items() if panel in own["panels"]]


def takes_over(config: Config, condition: str, panel: str) -> bool:
    """Whether an attacked condition takes over from its clean one the classes that it does not
    touch: both condense them alike, the clean one runs all the panel's methods, and one of these
    does not compare classes."""
    clean = config["conditions"][condition]["clean"]
    methods = config["panels"][panel]
    attack = attack_of(config, condition)
    condensers = [condenser_of(config, methods[0], name) for name in (condition, clean)]
    networks = [network_of(config, name) for name in (condition, clean)]
    estimators = [estimator_of(config, method) for method in methods]
    return (
        attack is not None
        and not attack.plugin.facts["every_class"]
        and condensers[0].plugin.facts["class_by_class"]
        and condensers[0].as_argument() == condensers[1].as_argument()
        and networks[0].as_argument() == networks[1].as_argument()
        and any(one is not None and not one.plugin.facts["across_classes"] for one in estimators)
        and set(methods)
        <= {m for own in config["conditions"][clean]["panels"] for m in config["panels"][own]}
    )
