"""A digest follows names to what a job runs, and nothing else."""

import ast
import shutil
import subprocess
import sys

import pytest

from rdmdc.workflow import digest

PACKAGE = digest.PACKAGE
SOURCES = {
    "start": '''
"""A module."""
from math import pi
import json
from rdmdc import maths, tools as kit
from rdmdc.shapes import Shape, area as surface
from rdmdc.tools import TOOLS, plug

LIMIT = 3
"""What a constant is."""
STEP: int = 4
IDLE = 5

@plug
def run(x):
    """Run."""
    # a comment
    made = kit.polish(maths.double(x)) + TOOLS["hammer"](x)
    return made + LIMIT * STEP + surface(Shape(x)) + pi + len(json.dumps(x))

def idle(x):
    return maths.unused(x) + IDLE
''',
    "maths": """
from rdmdc.shapes import corners
FACTOR = 2
def double(x):
    return FACTOR * x
def unused(x):
    return 0
""",
    "shapes": """
from rdmdc import maths
class Shape:
    side = 1
    def grow(self):
        return grown(self)
def grown(shape):
    return 7
def area(shape):
    return maths.corners(shape) + 8
def corners(shape):
    return 4
def perimeter(shape):
    return 9
""",
    "tools": """
def plug(function):
    return wrap(function)
def wrap(function):
    return function
def hammer(x):
    return 11
def polish(x):
    return 12
TOOLS = {"hammer": hammer}
""",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder in the package's place, to be filled and edited."""
    monkeypatch.setattr(digest, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


@pytest.fixture
def made_up(package, monkeypatch):
    monkeypatch.setattr(digest, "REGISTRIES", {"tools.TOOLS"})
    for module, source in SOURCES.items():
        (package / f"{module}.py").write_text(source)
    return package


@pytest.fixture
def copied(package):
    for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("*.c")):
        shutil.copy(path, package)
    return package


def forget():
    for function in vars(digest).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def edit(folder, module, old, new):
    path = folder / f"{module}.py"
    source = path.read_text()
    assert source.count(old) == 1, old
    path.write_text(source.replace(old, new))
    forget()


# --- a made-up package -----------------------------------------------------------------------

REACHED = {
    "itself": ("start", "surface(Shape(x)) + pi", "surface(Shape(x)) - pi"),
    "constant": ("start", "LIMIT = 3", "LIMIT = 4"),
    "annotated constant": ("start", "STEP: int = 4", "STEP: int = 3"),
    "decorator": ("tools", "return wrap(function)", "return wrap(wrap(function))"),
    "what a decorator calls": ("tools", "    return function\n", "    return lambda: function\n"),
    "from rdmdc import x, x.f": ("maths", "FACTOR * x", "x * FACTOR"),
    "its constant": ("maths", "FACTOR = 2", "FACTOR = 3"),
    "from rdmdc import x as y, y.f": ("tools", "return 12", "return 13"),
    "from rdmdc.x import f as g": ("shapes", "+ 8", "+ 9"),
    "an imported class's attribute": ("shapes", "side = 1", "side = 2"),
    "its method": ("shapes", "return grown(self)", "return grown(self) + 1"),
    "what its method calls": ("shapes", "return 7", "return 6"),
    "x.f that x imports from y": ("shapes", "return 4", "return 5"),
    "default": ("start", "def run(x):", "def run(x=1):"),
}
NOT_REACHED = {
    "docstring": ("start", '"""Run."""', '"""Run it, said better."""'),
    "no docstring": ("start", '    """Run."""\n', ""),
    "new docstring": ("maths", "def double(x):", 'def double(x):\n    """Twice."""'),
    "class docstring": ("shapes", "class Shape:", 'class Shape:\n    """A shape."""'),
    "constant's docstring": ("start", '"""What a constant is."""', '"""Three."""'),
    "comment": ("start", "# a comment", "# another comment"),
    "comment in a callee": ("maths", "    return FACTOR", "    # twice\n    return FACTOR"),
    "blank lines": ("start", "    made =", "\n\n    made ="),
    "line break": ("start", "LIMIT * STEP", "(LIMIT\n        * STEP)"),
    "another function": ("start", "+ IDLE", "- IDLE"),
    "another constant": ("start", "IDLE = 5", "IDLE = 6"),
    "another module's function": ("maths", "return 0", "return 1"),
    "another imported module's function": ("shapes", "return 9", "return 10"),
    "registry": ("tools", '{"hammer": hammer}', '{"hammer": hammer, "polish": polish}'),
    "what a registry names": ("tools", "return 11", "return 12.5"),
    "new function": ("tools", "TOOLS =", "def saw(x):\n    return 14\nTOOLS ="),
    "import": ("start", "from math import pi", "from math import pi, tau"),
}


@pytest.mark.parametrize("change", REACHED.values(), ids=REACHED)
def test_an_edit_of_what_is_reached_shows(made_up, change):
    before = digest.digest("start.run")
    edit(made_up, *change)
    assert digest.digest("start.run") != before


@pytest.mark.parametrize("change", NOT_REACHED.values(), ids=NOT_REACHED)
def test_any_other_edit_does_not(made_up, change):
    before = digest.digest("start.run")
    edit(made_up, *change)
    assert digest.digest("start.run") == before


def test_a_registrys_entry_that_is_named_shows(made_up):
    before = digest.digest("start.run", "tools.hammer")
    assert before != digest.digest("start.run")
    edit(made_up, "tools", "return 11", "return 12.5")
    assert digest.digest("start.run", "tools.hammer") != before


def test_form_of_a_digest(made_up):
    made = digest.digest("start.run", "tools.hammer")
    assert len(made) == 16
    assert int(made, 16) >= 0
    assert digest.digest("tools.hammer", "start.run", "tools.hammer") == made


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("maths.nothing", "rdmdc.maths defines no 'nothing'"),
        ("nowhere.double", "rdmdc has no module 'nowhere'"),
        ("maths", "rdmdc.maths defines no ''"),
    ],
)
def test_unknown_name(made_up, name, fault):
    with pytest.raises(digest.DigestError, match=fault):
        digest.digest("start.run", name)


def test_unknown_name_in_the_code(made_up):
    edit(made_up, "start", "maths.double(x)", "maths.treble(x)")
    with pytest.raises(digest.DigestError, match=r"rdmdc\.maths defines no 'treble'"):
        digest.digest("start.run")


# --- this package ----------------------------------------------------------------------------

MEAN = ("condense.condense", "estimators.mean")
SPECTRAL = ("condense.condense", "estimators.spectral_mean")
FOLDER = ("stages.data", "sources.folder", "sources.class_folders")


def alter(folder, name):
    """Insert a statement into a function or a class's method, and lose the module's comments."""
    module, *path = name.split(".")
    file = folder / f"{module}.py"
    tree = node = ast.parse(file.read_text())
    for part in path:
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    node.body.append(ast.parse("altered = 1").body[0])
    file.write_text(ast.unparse(tree))
    forget()


@pytest.mark.parametrize(
    ("roots", "name", "shows"),
    [
        (MEAN, "estimators.mean", True),
        (MEAN, "estimators.Estimate", True),
        (MEAN, "augment.augment", True),
        (MEAN, "networks.ConvNet.embed", True),
        (MEAN, "networks.embed_all", True),
        (MEAN, "native.embed", True),
        (MEAN, "records.Normalisation.normalise", True),
        (MEAN, "randomness.generator", True),
        (MEAN, "deviation.trace_rows", True),
        (MEAN, "estimators.spectral_mean", False),
        (MEAN, "estimators.top_direction", False),
        (MEAN, "augment.crop", False),
        (MEAN, "attacks.dm", False),
        (MEAN, "report.table", False),
        (SPECTRAL, "estimators.spectral_mean", True),
        (SPECTRAL, "estimators.top_direction", True),
        (SPECTRAL, "estimators._mean_without_top", True),
        (SPECTRAL, "rates.dropped", True),
        (SPECTRAL, "estimators.median", False),
        (FOLDER, "sources.class_folders", True),
        (FOLDER, "sources.tiny_imagenet", False),
        (FOLDER, "sources.parquet", False),
        (FOLDER, "datasets._decode", True),
        (("augment.crop",), "augment._resample", True),
        (("augment.color",), "augment._resample", False),
        (("report.table",), "condense.condense", False),
    ],
)
def test_what_a_stage_reaches(copied, roots, name, shows):
    before = digest.digest(*roots)
    alter(copied, name)
    assert (digest.digest(*roots) != before) == shows


def test_c_code_shows_and_its_comments_do_not(copied):
    before = digest.digest(*MEAN)
    source = copied / "convnet.c"
    source.write_text("/* a word\n more */" + source.read_text())
    forget()
    assert digest.digest(*MEAN) == before
    source.write_text(source.read_text().replace("0.25f", "0.5f", 1))
    forget()
    assert digest.digest(*MEAN) != before


def test_an_appended_estimator_changes_no_digest(copied):
    before = [digest.digest(*MEAN), digest.digest(*SPECTRAL)]
    with open(copied / "estimators.py", "a") as file:
        file.write("\n\ndef new(embeddings, generators):\n    return None\n")
    edit(copied, "estimators", "for f in (mean, median,", "for f in (new, mean, median,")
    assert [digest.digest(*MEAN), digest.digest(*SPECTRAL)] == before
    digest.digest("estimators.new")


@pytest.mark.parametrize("name", sorted(digest.REGISTRIES))
def test_registries_exist(name):
    digest.digest(name)


@pytest.mark.parametrize("module", sorted(path.stem for path in PACKAGE.glob("*.py")))
def test_nothing_is_written_in_a_form_that_a_digest_overlooks(module):
    """Each name is defined once, plainly, at the top level, as is each import of this package."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = []
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                assert ast.unparse(statement).startswith("if __name__ == '__main__':")
    assert len(names) == len(set(names))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "rdmdc" for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node in tree.body or not node.module.startswith("rdmdc")
    for name in names:
        digest.digest(f"{module}.{name}")


def test_digest_imports_nothing():
    code = (
        "import sys; from rdmdc.workflow.digest import digest; digest('condense.condense');"
        "sys.exit('torch' in sys.modules or 'rdmdc.condensers.dm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
