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
from functools import cache
from typing import Any

from rdmdc import rates
from rdmdc.errors import InputError
from rdmdc.rates import Rate as Rate
from rdmdc.wording import keys, nearest, wanted

BOUNDS = {
    "at_least": lambda value, bound: value >= bound,
    "at_most": lambda value, bound: value <= bound,
    "above": lambda value, bound: value > bound,
    "below": lambda value, bound: value < bound,
    "choices": lambda value, bound: value in bound,
}
"""What bounds a value, as tests; of a tuple each element is tested."""


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
            raise OptionError(
                f"{where}: unknown option {key!r}{nearest(key, known)}"
                f" (options: {', '.join(known) or 'none'})"
            )
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


def _checked(kind: Any, metadata: Mapping[str, Any], value: Any, where: str) -> Any:
    """The value in its type, within its bounds."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        within = [argument for argument in arguments if argument is not type(None)]
        fitting = [one for one in within if _fits(one, value)]
        if not fitting:
            raise OptionError(f"{where}: {value!r} must be {wanted(kind, metadata)}")
        return _checked(fitting[0], metadata, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise OptionError(
                f"{where}: {value!r} is not a section of options; write below it {keys(kind)}"
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
    bounds = [(metadata[name], holds) for name, holds in BOUNDS.items() if name in metadata]
    if not _is(kind, value) or not all(holds(value, bound) for bound, holds in bounds):
        raise OptionError(f"{where}: {value!r} must be {wanted(kind, metadata)}")
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
