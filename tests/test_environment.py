"""environment.yml asks for what pyproject.toml asks for, in conda's names."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
CONDA = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
TOOLS = {"python", "pip", "c-compiler"}


def ranges(lines):
    """Name to version range."""
    return {r.name: r.specifier for r in map(Requirement, lines)}


def test_same_packages_in_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (by_pip,) = (entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = ranges(entry for entry in listed if isinstance(entry, str))
    lowest = SpecifierSet(project["requires-python"])
    assert all(str(bound) in str(conda["python"]) for bound in lowest)
    found = {CONDA.get(name, name): range_ for name, range_ in conda.items() if name not in TOOLS}
    found |= ranges(line for line in by_pip if not line.startswith("--"))
    assert found == ranges(project["dependencies"])
