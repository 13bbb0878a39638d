"""What the Python API checks of its arguments, so that each fault is one line before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from rdmdc import plugins, rates
from rdmdc.contrast import ContrastError
from rdmdc.errors import InputError
from rdmdc.models.augment import OPERATIONS
from rdmdc.models.network import Network, NetworkError
from rdmdc.options import OptionError, build, fields
from rdmdc.plugins import Plugin, PluginError
from rdmdc.records import LabelledImages, RecordError
from rdmdc.wording import nearest

DEVICES = ("cpu", "cuda")
Choice = str | Mapping[str, Any]
"""A plug-in: its name, or a mapping of ``use`` and options as an entry of a preset has them."""

FAULTS = (ContrastError, NetworkError, OptionError, PluginError, RecordError, rates.RateError)
"""Errors of what arguments are made into."""

P = ParamSpec("P")
R = TypeVar("R")


class ApiError(InputError):
    """Arguments that do not fit; the message names the value and what would be right."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with ApiError in place of the errors that its arguments can cause inside."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FAULTS as error:
            raise ApiError(str(error)) from error

    return call


def whole(value: Any, what: str, lowest: int, highest: int | None = None, because: str = "") -> int:
    """The value, if it is a whole number within these bounds; ``because`` explains the upper."""
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fits or value < lowest or (highest is not None and value > highest):
        upper = "" if highest is None else f" and at most {highest}{because}"
        raise ApiError(f"{what} is {value!r}; give a whole number, at least {lowest}{upper}")
    return int(value)


def one_of(value: Any, what: str, known: Iterable[str]) -> str:
    """The value, if it is one of those that there are."""
    if value not in tuple(known):
        raise ApiError(f"{what} is {value!r}; choose {' or '.join(known)}")
    return str(value)


def device_named(device: Any) -> str:
    """The device, if torch computes on it here."""
    one_of(device, "device", DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise ApiError("device is 'cuda', but torch finds no GPU here; choose cpu")
    return str(device)


def operations(augmentation: Any) -> tuple[str, ...]:
    """The names of augmentations, each of which exists."""
    if isinstance(augmentation, str) or not isinstance(augmentation, Sequence):
        raise ApiError(f"augmentation is {augmentation!r}; give a list such as ['crop', 'flip']")
    for name in augmentation:
        if not isinstance(name, str) or name not in OPERATIONS:
            raise ApiError(
                f"augmentation: there is no {name!r}{nearest(name, OPERATIONS)}"
                f" (there are {', '.join(OPERATIONS)})"
            )
    return tuple(augmentation)


def rate(value: Any, what: str) -> str:
    """An exact fraction; floats are refused, since ceil(0.1 · 20) is 3 in floats."""
    if not isinstance(value, str):
        raise ApiError(f'{what} is {value!r}; write an exact fraction such as "1/10"')
    try:
        rates.parse(value)
    except rates.RateError as error:
        raise ApiError(f"{what}: {error}") from error
    return value


def fitting(network: Network, images: LabelledImages) -> Network:
    """The network, if it is made for images of this shape and so many classes."""
    wanted = (*images.pixels.shape[1:], len(images.class_names))
    found = (network.channels, network.side, network.side, network.classes)
    if found != wanted:
        raise ApiError(
            f"network is for images of shape {found[:3]} in {found[3]} classes, but these have"
            f" shape {wanted[:3]} and {wanted[3]} classes; make one by rdmdc.network(images)"
        )
    return network


def name_of(choice: Any, what: str) -> str:
    """The name of the chosen plug-in."""
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, Mapping):
        raise ApiError(
            f"{what} is {choice!r}; give a plug-in's name, or its name and options as a mapping"
        )
    if "use" not in choice:
        raise ApiError(f"{what} is {dict(choice)}: the key use is missing, the plug-in's name")
    return str(choice["use"])


def options_of(plugin: Plugin, choice: Choice, usual: Mapping[str, Any]) -> Any:
    """The plug-in's options: those of the choice, and the usual ones that it has."""
    known = fields(plugin.options)
    own = {} if isinstance(choice, str) else {k: v for k, v in choice.items() if k != "use"}
    values = {**{key: value for key, value in usual.items() if key in known}, **own}
    return build(plugin.options, values, f"{plugin.kind} {plugin.name}")


def plugin_of(kind: str, choice: Any, what: str) -> Plugin:
    """The chosen plug-in; ``what`` is the argument that names it."""
    return plugins.get(kind, name_of(choice, what), what)
