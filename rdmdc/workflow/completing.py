"""The keys that a preset leaves out are filled in; types and names of all keys are checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rdmdc.options import build, fields
from rdmdc.wording import nearest
from rdmdc.workflow import keys
from rdmdc.workflow.presets import Config, ConfigError, plugin_named

NAME = re.compile(r"[a-z][a-z0-9_]*")
TABLE = re.compile(r"table[a-z0-9_]*")
ENTRIES = ("networks", "attacks", "screens", "condensers", "estimators", "methods", "panels")


def complete(config: Config) -> dict[str, Any]:
    """The preset with the sections and keys that it may leave out; names and types are checked.

    Raises OptionError or ConfigError for the first fault.
    """
    full = {**keys.OPTIONAL, **config}
    build(keys.Preset, full, "preset")
    for section in (*ENTRIES, "conditions", "tables"):
        pattern = TABLE if section == "tables" else NAME
        for name in full[section]:
            if not pattern.fullmatch(str(name)):
                raise ConfigError(
                    f"{section}: {name!r} is no name; it must match {pattern.pattern}, since paths"
                    " are made from it"
                )
    if not NAME.fullmatch(full["preset"]):
        raise ConfigError(f"preset: {full['preset']!r} is no name; it must match {NAME.pattern}")
    full["methods"] = {
        name: _section(entry, f"methods.{name}", keys.Method, ("estimator",))
        for name, entry in full["methods"].items()
    }
    full["conditions"] = {
        name: _condition(full, name, entry) for name, entry in full["conditions"].items()
    }
    for name, table in full["tables"].items():
        build(keys.Table, _section(table, f"tables.{name}", None), f"tables.{name}")
    return full


def _section(
    entry: Any, where: str, options: type | None, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A mapping whose optional keys are null where they are not given; checked by ``options``."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: {entry!r} is not a section; write its keys below it")
    full = {**dict.fromkeys(optional), **entry}
    if options is not None:
        build(options, full, where)
    return full


def _condition(config: Config, name: str, entry: Any) -> dict[str, Any]:
    """A condition with ``options``: those keys that are its attack's and not a condition's."""
    where = f"conditions.{name}"
    own = fields(keys.Condition)
    full = _section(entry, where, None, tuple(own)[3:])
    further = {key: value for key, value in full.items() if key not in own}
    build(keys.Condition, {key: value for key, value in full.items() if key in own}, where)
    attack = full["attack"]
    if further and attack == "none":
        raise ConfigError(f"{where}: without an attack {', '.join(further)} means nothing")
    if further:
        known = fields(plugin_named(config, "attack", attack, where).options)
        strange = [key for key in further if key not in known]
        if strange:
            hint = nearest(strange[0], [*own, *known])
            raise ConfigError(
                f"{where}: unknown key {strange[0]!r}{hint} (keys: {', '.join(own)}; options of"
                f" {attack}: {', '.join(known) or 'none'})"
            )
    return {**{key: full[key] for key in own}, "options": further}
