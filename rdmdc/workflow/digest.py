"""Digests of the code that a job runs, so that an edit re-runs what uses it and nothing else.

Snakemake does not see that a Python module changed. A digest hashes the syntax trees, without
docstrings and comments, of all definitions of this package that can be reached by name from given
ones, and the C that they call. It reads the source and imports nothing.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent

REGISTRIES = {
    "estimators.ESTIMATORS",
    "attacks.ATTACKS",
    "attacks.OPTIMISERS",
    "augment.OPERATIONS",
    "condense.INITIALISATIONS",
    "sources.SOURCES",
    "sources.LAYOUTS",
}
"""Tables from names to functions: not followed, so that a new entry changes no digest. A job
names the entries that it uses."""


SOURCES = {"native.SOURCE": "convnet.c"}
"""Definitions that stand for a file in C: its code, without comments, is what they are."""


class DigestError(LookupError):
    """A definition that the package does not have."""


@cache
def digest(*roots: str) -> str:
    """Hash (16 hex digits) of the definitions reachable from roots such as "estimators.mean"."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _references(name)
    text = "\n".join(f"{name} {_dump(name)}" for name in sorted(reached))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """Top-level definitions of a module by name: functions, classes, constants and imports."""
    path = PACKAGE / f"{module}.py"
    if not path.is_file():
        raise DigestError(f"rdmdc has no module {module!r}")
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(path.read_text()).body:
        for name in _names(statement):
            found[name] = statement
    return found


def _names(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Assign():
            yield from (t.id for t in statement.targets if isinstance(t, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in statement.names)
        case _:
            return


def _definition(name: str) -> ast.stmt:
    module, _, item = name.partition(".")
    definitions = _definitions(module)
    if item not in definitions:
        raise DigestError(f"rdmdc.{module} defines no {item!r}")
    return definitions[item]


def _references(name: str) -> Iterator[str]:
    """What a definition names of this package: "module.item", through imports and attributes."""
    module = name.partition(".")[0]
    local = _definitions(module)
    statement = _definition(name)
    if isinstance(statement, ast.Import | ast.ImportFrom):
        home = _imported(statement, name.partition(".")[2])
        if home and "." in home:
            yield from _follow(home)
        return
    for node in ast.walk(_without_docstrings(statement)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            home = _imported(local.get(node.value.id), node.value.id)
            if home and home.count(".") == 0:
                yield from _follow(f"{home}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in local:
            home = _imported(local[node.id], node.id)
            if home is None and not isinstance(local[node.id], ast.Import | ast.ImportFrom):
                yield from _follow(f"{module}.{node.id}")
            elif home and "." in home:
                yield from _follow(home)


def _follow(name: str) -> Iterator[str]:
    if name not in REGISTRIES:
        yield name


def _imported(statement: ast.stmt | None, name: str) -> str | None:
    """What an import in this package binds: "module" or "module.item", None for anything else."""
    if not isinstance(statement, ast.ImportFrom) or not statement.module:
        return None
    original = next(a.name for a in statement.names if (a.asname or a.name) == name)
    if statement.module == "rdmdc":
        return original if (PACKAGE / f"{original}.py").is_file() else None
    if statement.module.startswith("rdmdc."):
        return f"{statement.module.removeprefix('rdmdc.')}.{original}"
    return None


@cache
def _dump(name: str) -> str:
    if name in SOURCES:
        code = (PACKAGE / SOURCES[name]).read_text()
        return " ".join(re.sub(r"/\*.*?\*/", " ", code, flags=re.DOTALL).split())
    return ast.unparse(_without_docstrings(_definition(name)))


def _without_docstrings(statement: ast.stmt) -> ast.stmt:
    """A copy without docstrings; a body that was nothing else keeps an empty list."""
    copy = ast.parse(ast.unparse(statement)).body[0]
    for node in ast.walk(copy):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.body = [
                s
                for s in node.body
                if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            ]
    return copy
