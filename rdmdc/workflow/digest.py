"""Digests of the code that a job runs, so that an edit re-runs what it can change and nothing else.

Snakemake does not see that a Python module changed. A digest hashes the files of all modules that a
job's stage and its plug-ins reach by imports: those of this package, and those of another package
that has a plug-in. A file counts as its syntax tree without comments, docstrings and the words of
errors; a file that a module names and that lies beside it, such as the kernels in C, counts as
well. Nothing is imported.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from pkgutil import get_importer

from rdmdc.errors import InputError

PACKAGE = "rdmdc"

CHANGES_NO_NUMBER = frozenset(
    {
        "rdmdc",
        "rdmdc.checkpoints",
        "rdmdc.errors",
        "rdmdc.plugins",
        "rdmdc.progress",
        "rdmdc.wording",
        "rdmdc.storage.guarded",
        "rdmdc.storage.job_checkpoints",
        "rdmdc.storage.provenance",
        "rdmdc.storage.reading",
        "rdmdc.storage.writing",
    }
)
"""Modules that no digest counts: version, words, progress, bookkeeping. Nor do their imports."""


class DigestError(InputError):
    """A module that cannot be found."""


@cache
def digest(*modules: str) -> str:
    """Hash (16 hex digits) of all code that these modules reach by imports."""
    hashed = hashlib.sha256()
    for name in sorted(reached(*modules)):
        hashed.update(f"{name} {_content(name)}\n".encode())
    return hashed.hexdigest()[:16]


def reached(*modules: str) -> set[str]:
    """The modules of this package and of the plug-ins' own that these reach, themselves included.

    Raises DigestError for a module that does not exist or cannot be parsed.
    """
    waiting, found = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name not in found and name not in CHANGES_NO_NUMBER:
            found.add(name)
            waiting += _imports(name)
            package = name.rpartition(".")[0]
            waiting += [package] if package else []  # a module's package is run before it
    return found


@cache
def _imports(name: str) -> frozenset[str]:
    """The modules that a module imports, of this package and of its own distribution."""
    spec = _existing(name)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    named = set()
    for node in _run(_tree(name)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            named |= {f"{origin}.{alias.name}" for alias in node.names}  # a module, or a name in it
    mine = {one for one in named if _is_own(one.partition(".")[0], name.partition(".")[0])}
    modules = {one if _spec(one) else one.rpartition(".")[0] for one in mine}
    return frozenset(one for one in modules if _spec(one))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and child in node.body and _is_for_types(node.test):
            continue
        yield from _run(child)


def _is_for_types(test: ast.expr) -> bool:
    """True for ``TYPE_CHECKING``, also as an attribute of typing."""
    return ast.unparse(test).rpartition(".")[2] == "TYPE_CHECKING"


def _is_own(top: str, importing: str) -> bool:
    """True if the code of a top-level module counts for another one that imports it.

    It counts if it is this package, or if both lie in the same folder and are of the same
    distribution: what a plug-in imports of torch, installed beside it, does not count.
    """
    if top in (PACKAGE, importing):
        return True
    if importing == PACKAGE or _folders(top).isdisjoint(_folders(importing)):
        return False
    distributions = _distributions()
    return set(distributions.get(top, ())) == set(distributions.get(importing, ()))


_distributions = cache(packages_distributions)


def _folders(top: str) -> frozenset[Path]:
    """The folders in which a top-level module lies: several for a namespace package, or none."""
    spec = _spec(top)
    if spec is None:
        return frozenset()
    places = spec.submodule_search_locations
    if places is None:
        places = [spec.origin] if spec.origin else []
    return frozenset(Path(place).parent for place in places)


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, found without importing its packages; None where there is none."""
    package = name.rpartition(".")[0]
    if not package:
        try:
            return find_spec(name)
        except ValueError:  # __main__, and a relative import outside a package
            return None
    above = _spec(package)
    places = (above.submodule_search_locations if above else None) or []
    found = [spec for place in places if (spec := _spec_in(place, name)) is not None]
    files = [spec for spec in found if spec.loader is not None]
    return next(iter(files or found), None)  # a folder without __init__.py is the last choice


def _spec_in(place: str, name: str) -> ModuleSpec | None:
    """The module of that name in a folder of its package."""
    finder = get_importer(place)
    return None if finder is None else finder.find_spec(name)


def _existing(name: str) -> ModuleSpec:
    """As `_spec`; DigestError where there is no such module."""
    spec = _spec(name)
    if spec is None:
        top = name.partition(".")[0]
        if _spec(top) is None:
            raise DigestError(f"there is no module {name!r}; install the package that it is from")
        raise DigestError(f"there is no module {name!r} in {top}; install a version that has it")
    return spec


@cache
def _tree(name: str) -> ast.AST:
    """A module's syntax tree; an empty one for a package without a file and for compiled code."""
    origin = _existing(name).origin
    if origin is None or not origin.endswith(tuple(SOURCE_SUFFIXES)):
        return ast.Module([], [])
    try:
        return ast.parse(Path(origin).read_bytes())
    except SyntaxError as error:
        raise DigestError(f"{origin} line {error.lineno}: {error.msg}; mend it") from error


@cache
def _content(name: str) -> str:
    """What counts of a module: its code, and that of the files beside it which it names."""
    origin = _existing(name).origin
    if origin is None:
        return ""  # a namespace package has no file
    path = Path(origin)
    if path.suffix not in SOURCE_SUFFIXES:
        return _beside(path)
    tree = _Counted().visit(ast.parse(path.read_bytes()))
    parts = [ast.unparse(tree)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            beside = path.parent / node.value
            if re.fullmatch(r"[\w-]+\.\w+", node.value) and beside.is_file():
                parts.append(_beside(beside))
    return "\n".join(parts)


def _beside(path: Path) -> str:
    """What counts of a file that is no module: its hash; C's text without comments and spaces."""
    if path.suffix not in (".c", ".h"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.DOTALL)
    return " ".join(text.split())


WORDS = {"option": 0, "print": 0, "require": 1, "_require": 1, "unique": 1}
"""Functions that are given words: how many of their positional arguments count."""
WORDED = frozenset({"unit", "place", "remedy"})
"""Keyword arguments of `option` and `guarded` that are words."""


class _Counted(ast.NodeTransformer):
    """Drops what cannot change a number: docstrings, what errors and what options say."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name.endswith("Error"):
            node.args = []
        if name in WORDS:
            node.args = node.args[: WORDS[name]]
        if name in ("option", "guarded"):
            node.keywords = [one for one in node.keywords if one.arg not in WORDED]
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.With) and not node.body:
            node.body = [ast.Pass()]
        return node
