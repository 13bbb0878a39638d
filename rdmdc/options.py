"""Options of plug-ins and stages: frozen dataclasses whose fields say what they mean.

A field states its text, bounds and unit once. The preset's schema, its error messages and the
reference page of the documentation are made from it. No field has a default: a preset is complete.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, NewType

from rdmdc import rates
from rdmdc.errors import InputError

Rate = NewType("Rate", str)
"""An exact fraction in [0, 1], written as a string such as "3/10"."""

BOUNDS = {
    "at_least": ("at least", lambda value, bound: value >= bound),
    "at_most": ("at most", lambda value, bound: value <= bound),
    "above": ("above", lambda value, bound: value > bound),
    "below": ("below", lambda value, bound: value < bound),
    "choices": ("one of", lambda value, bound: value in bound),
}
"""What bounds a value, in words and as a test; for a tuple each of its elements is tested."""


class OptionError(InputError):
    """An option that does not fit; the message names the field, its value and its bounds."""


def option(
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    unit: str | None = None,
) -> Any:
    """A field of an options dataclass: what it means in a sentence, its bounds and its unit."""
    bounds = {
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "below": below,
        "choices": choices,
    }
    stated = {name: bound for name, bound in bounds.items() if bound is not None}
    return dataclasses.field(metadata={"text": text, "unit": unit, **stated})


@cache
def fields(options: type | None) -> Mapping[str, tuple[Any, Mapping[str, Any]]]:
    """Each field's type and metadata, by name; none for a plug-in without options."""
    if options is None:
        return {}
    hints = typing.get_type_hints(options)
    return {
        field.name: (hints[field.name], field.metadata) for field in dataclasses.fields(options)
    }


def build(options: type | None, values: Mapping[str, Any], where: str) -> Any:
    """An instance of the options dataclass; None for a plug-in without options.

    Raises OptionError for a missing or an unknown key, a wrong type and a value outside its bounds;
    ``where`` is the place in the preset that the message names.
    """
    known = fields(options)
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            listed = ", ".join(known) or "none"
            raise OptionError(f"{where}: unknown option {key!r}{hint} (options: {listed})")
    missing = [key for key in known if key not in values]
    if missing:
        text = known[missing[0]][1].get("text", "")
        raise OptionError(f"{where}: option {missing[0]!r} is missing: {text}")
    if options is None:
        return None
    checked = {
        key: _checked(kind, metadata, values[key], f"{where}.{key}")
        for key, (kind, metadata) in known.items()
    }
    return options(**checked)


def plain(value: Any) -> Any:
    """Options as what JSON holds: dicts and lists, for a job's command line and its artifacts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple | list):
        return [plain(element) for element in value]
    return value


def _checked(kind: Any, metadata: Mapping[str, Any], value: Any, where: str) -> Any:
    """The value in its type, within its bounds."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        within = [argument for argument in arguments if argument is not type(None)]
        fitting = [one for one in within if _fits(one, value)]
        if not fitting:
            raise OptionError(f"{where}: {value!r} must be {_wanted(kind, metadata)}")
        return _checked(fitting[0], metadata, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise OptionError(
                f"{where}: {value!r} is not a section of options; write below it {_keys(kind)}"
            )
        return build(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise OptionError(f"{where}: {value!r} is not a list; write [{value}, ...]")
        twice = [one for index, one in enumerate(value) if one in value[:index]]
        if twice:
            raise OptionError(f"{where}: {twice[0]!r} is listed twice; remove one")
        return tuple(_checked(arguments[0], metadata, one, where) for one in value)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise OptionError(f"{where}: {value!r} is not a section; write its keys below it")
        return value
    if kind is Rate:
        if not isinstance(value, str):
            raise OptionError(f'{where}: {value!r} is no fraction; write one such as "3/10"')
        try:
            rates.parse(value)
        except rates.RateError as error:
            raise OptionError(f"{where}: {error}") from error
        return value
    bounds = [(metadata[name], holds) for name, (_, holds) in BOUNDS.items() if name in metadata]
    if not _is(kind, value) or not all(holds(value, bound) for bound, holds in bounds):
        raise OptionError(f"{where}: {value!r} must be {_wanted(kind, metadata)}")
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    """True if a value from YAML has the form of the type, whatever its bounds and its options."""
    if kind is Rate:
        return isinstance(value, str)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    origin = typing.get_origin(kind) or kind
    if origin is tuple:
        return isinstance(value, list | tuple)
    return _is(origin, value)


def _is(kind: Any, value: Any) -> bool:
    """True if a value from YAML is of the type; a whole number is a float too, a bool is not."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _wanted(kind: Any, metadata: Mapping[str, Any]) -> str:
    """What an option must be, in words: "a whole number, at least 1"."""
    bounds = [
        f"{words} {', '.join(bound) if name == 'choices' else bound}"
        for name, (words, _) in BOUNDS.items()
        if (bound := metadata.get(name)) is not None
    ]
    return ", ".join([_name(kind), *bounds])


def _name(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(_name(one) for one in typing.get_args(kind))
    if dataclasses.is_dataclass(kind):
        return f"a section of {_keys(kind)}"
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Rate: 'a fraction such as "3/10"',
        tuple: "a list",
        Mapping: "a section",
        type(None): "null",
    }
    return words[typing.get_origin(kind) or kind]


def _keys(options: Any) -> str:
    """The names of the fields of an options dataclass."""
    return ", ".join(field.name for field in dataclasses.fields(options))
