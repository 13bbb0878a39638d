"""Planning without torch: heavy packages load when they are first used, not when imported.

Snakemake plans from plug-ins' options and facts alone, but a plug-in's file imports torch for its
function. While planning, such an import binds a placeholder that loads the package at the first use
of one of its names, as ``lazy import`` of Python 3.15 does. The standard library's LazyLoader would
serve, but in Python 3.11 a second import of the same name already loads the package.

A plug-in that uses torch while it is imported, for instance by ``from torch import nn``, still
works; planning then takes the second or two longer that loading torch takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A package that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def lazily(*packages: str) -> Iterator[None]:
    """Within this context, importing one of these packages does not load it yet.

    Names that were bound to a placeholder stay good afterwards. A package that is not installed or
    is loaded already is left alone.
    """
    for name in packages:
        if name not in sys.modules and (spec := importlib.util.find_spec(name)) is not None:
            sys.modules[name] = _Later(name)
            sys.modules[name].__spec__ = spec
    try:
        yield
    finally:
        for name in packages:
            if isinstance(sys.modules.get(name), _Later):
                del sys.modules[name]
