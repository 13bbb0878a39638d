"""Plug-ins: attacks, screens, condensers, estimators, networks and sources, one file each.

A plug-in is a function with a decorator of its kind, which states its options and what the
workflow must know of it. The package's own plug-ins are the files of the folder of their kind;
another package's are found by entry points in the group ``rdmdc.<kind>s``. Nothing lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rdmdc.errors import InputError, line
from rdmdc.wording import nearest

KINDS = {
    "attack": "attacks",
    "screen": "screens",
    "condenser": "condensers",
    "estimator": "estimators",
    "network": "networks",
    "source": "sources",
}
"""Each kind with the folder of the package, the entry-point group and the preset's section."""


class PluginError(InputError):
    """A plug-in that does not exist, cannot be imported or clashes with another."""


@dataclass(frozen=True)
class Plugin:
    """A function with its options and what the workflow must know of it; call it as the function.

    ``facts`` are the decorator's further arguments, such as ``victims`` of an attack.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    options: type | None
    facts: Mapping[str, Any] = field(hash=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    @property
    def module(self) -> str:
        """The module that holds it."""
        return self.function.__module__


Decorator = Callable[[Callable[..., Any]], Plugin]


def attack(
    options: type | None = None,
    *,
    victims: bool = False,
    every_class: bool = False,
    passes: float = 0,
) -> Decorator:
    """Declare an attack ``(scene, options, progress, checkpoints) -> (PoisonSet, trace)``.

    victims: it needs pretrained networks. every_class: it poisons all classes, not only the
    adversarial one. passes: forward passes of one poison in one iteration (and for each victim).
    """
    return _declare("attack", options, victims=victims, every_class=every_class, passes=passes)


def screen(
    options: type | None = None, *, passes: Callable[[Any], float] = lambda options: 0
) -> Decorator:
    """Declare a screen ``(suspects, options, progress, checkpoints) -> Screening``.

    passes: forward passes of one training image, from the options.
    """
    return _declare("screen", options, passes=passes)


def condenser(
    options: type,
    *,
    matches: str | None,
    class_by_class: bool = False,
    passes: Callable[[Any, int, int], float] = lambda options, classes, methods: 0,
) -> Decorator:
    """Declare a condenser ``(task, options, progress, checkpoints) -> {method: (set, trace)}``.

    matches: "embeddings" or "gradients", the vectors whose class means an estimator replaces; None
    where no estimator applies. class_by_class: a class's result depends on its own images alone,
    but for what an estimator sees of the others; it then takes over from ``task.clean`` the classes
    that an attack leaves as they are. passes: forward passes of one image in all, from the options,
    the number of classes and of methods in the panel.
    """
    facts = {"matches": matches, "class_by_class": class_by_class, "passes": passes}
    return _declare("condenser", options, **facts)


def estimator(options: type | None = None, *, across_classes: bool = False) -> Decorator:
    """Declare an estimator ``(vectors, generators, options) -> Estimate``.

    across_classes: it compares a class with the others. It then gets two more arguments, sampled
    rows of all classes (`Others`) and the labels of the vectors' classes, and its options need a
    field ``others``: how many rows are sampled.
    """
    return _declare("estimator", options, across_classes=across_classes)


def network(options: type | None = None) -> Decorator:
    """Declare a network family ``(channels, side, classes, options) -> Network``."""
    return _declare("network", options)


def source(
    options: type | None = None,
    *,
    files: Callable[[Any], list[str]] = lambda options: [],
    content: Callable[[Any], Mapping[str, str]] = lambda options: {},
    fingerprint: Callable[[Any], str] = lambda options: "",
) -> Decorator:
    """Declare a source ``(options) -> (training split, test split)``.

    files: paths that the workflow watches. content: sha256 of data that the package itself holds.
    fingerprint: changes when a file changes, for folders of too many files to watch each.
    """
    return _declare("source", options, files=files, content=content, fingerprint=fingerprint)


def _declare(kind: str, options: type | None, **facts: Any) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Plugin:
        return Plugin(kind, function.__name__, function, options, facts)

    return decorate


# --- finding them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The plug-ins of a kind by name, and why others could not be imported."""

    plugins: Mapping[str, Plugin]
    broken: Mapping[str, str]


@cache
def load(kind: str) -> Found:
    """All plug-ins of a kind. Raises PluginError where two have one name."""
    found: dict[str, Plugin] = {}
    broken: dict[str, str] = {}
    for plugin in _own(kind):
        _add(found, plugin)
    for point in sorted(entry_points(group=f"rdmdc.{KINDS[kind]}"), key=lambda point: point.name):
        try:
            plugin = _loaded(point, kind)
        except Exception as error:  # another package's import can raise anything
            package = point.dist.name if point.dist else point.value
            broken[point.name] = f"package {package}: {type(error).__name__}: {line(error)}"
        else:
            _add(found, plugin)
    return Found(found, broken)


def get(kind: str, name: str, where: str) -> Plugin:
    """The plug-in of that name; PluginError names those that exist and the nearest."""
    found, name = load(kind), str(name)  # a preset may hold anything
    if name in found.plugins:
        return found.plugins[name]
    if name in found.broken:
        raise PluginError(f"{where}: the {kind} {name!r} cannot be imported: {found.broken[name]}")
    hint, listed = nearest(name, found.plugins), ", ".join(sorted(found.plugins))
    raise PluginError(f"{where}: no {kind} is named {name!r}{hint} (there are {listed})")


def _own(kind: str) -> Iterator[Plugin]:
    """The plug-ins in the package's folder of the kind."""
    package = importlib.import_module(f"rdmdc.{KINDS[kind]}")
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        for value in vars(module).values():
            if isinstance(value, Plugin) and value.kind == kind and value.module == module.__name__:
                yield value


def _loaded(point: EntryPoint, kind: str) -> Plugin:
    plugin = point.load()
    if not isinstance(plugin, Plugin) or plugin.kind != kind:
        raise PluginError(f"{point.value} is no function decorated with plugins.{kind}")
    if plugin.name != point.name:
        raise PluginError(f"{point.value} is named {plugin.name}, its entry point {point.name}")
    return plugin


def _add(found: dict[str, Plugin], plugin: Plugin) -> None:
    other = found.get(plugin.name)
    if other is not None:
        raise PluginError(
            f"two {KINDS[plugin.kind]} are named {plugin.name!r}, in {other.module} and in"
            f" {plugin.module}; rename or uninstall one"
        )
    found[plugin.name] = plugin
