"""What an option must be, in words: for error messages. It changes no number."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from rdmdc.rates import Rate

BOUNDS = {
    "at_least": "at least",
    "at_most": "at most",
    "above": "above",
    "below": "below",
    "choices": "one of",
}


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint such as "; did you mean flip?"; empty where no known name is similar."""
    near = get_close_matches(str(name), known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def wanted(kind: Any, metadata: Mapping[str, Any]) -> str:
    """What an option must be, in words: "a whole number, at least 1"."""
    bounds = [
        f"{words} {', '.join(bound) if name == 'choices' else bound}"
        for name, words in BOUNDS.items()
        if (bound := metadata.get(name)) is not None
    ]
    return ", ".join([_name(kind), *bounds])


def keys(options: Any) -> str:
    """The names of the fields of an options dataclass."""
    return ", ".join(field.name for field in dataclasses.fields(options))


def _name(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(_name(one) for one in typing.get_args(kind))
    if dataclasses.is_dataclass(kind):
        return f"a section of {keys(kind)}"
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
