"""Digests of the code that a job runs, so that an edit re-runs what it can change and nothing else.

Snakemake does not see that a Python module changed. A digest hashes the files of all modules that a
job's stage and its plug-ins reach by imports, in this package and in a plug-in's own, and those of
the packages that hold these modules. A file counts as its syntax tree without comments, docstrings
and the words of errors; a file that a module names and that lies beside it, such as the kernels in
C, counts as well. Nothing is imported.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grimp

from rdmdc.errors import InputError

PACKAGE = "rdmdc"

CHANGES_NO_NUMBER = frozenset(
    {
        "rdmdc",
        "rdmdc.checkpoints",
        "rdmdc.errors",
        "rdmdc.plugins",
        "rdmdc.progress",
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

    Raises DigestError for one that does not exist.
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
def _graph(package: str) -> grimp.ImportGraph:
    """The import graph of the package, with this one's where it is another."""
    both = dict.fromkeys((package, PACKAGE))
    return grimp.build_graph(*both, exclude_type_checking_imports=True, cache_dir=None)


@cache
def _imports(name: str) -> tuple[str, ...]:
    """The modules that a module imports, of its own package and of this one."""
    package = name.partition(".")[0]
    spec = find_spec(package)
    if spec is None:
        raise DigestError(f"there is no module {name!r}; install the package that it is from")
    if spec.submodule_search_locations is None:  # one file: grimp knows packages only
        return tuple(sorted(set(_named(_path(name)))))
    graph = _graph(package)
    if name not in graph.modules:
        raise DigestError(f"there is no module {name!r} in {package}")
    return tuple(sorted(graph.find_modules_directly_imported_by(name)))


def _named(path: Path) -> Iterator[str]:
    """The modules of this package that a lone file imports."""
    known = _graph(PACKAGE).modules
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in known and name != PACKAGE)


@cache
def _path(name: str) -> Path:
    """The file of a module."""
    top, *rest = name.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise DigestError(f"there is no module {name!r}; install the package that it is from")
    if not rest:
        return Path(spec.origin)
    inner = Path(spec.origin).parent.joinpath(*rest)
    return inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")


@cache
def _content(name: str) -> str:
    """What counts of a module: its code, and that of the files beside it which it names."""
    path = _path(name)
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
        if isinstance(node.func, ast.Name) and node.func.id == "option":
            node.args = []
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.With) and not node.body:
            node.body = [ast.Pass()]
        return node
