"""The lock file: exact versions, each with a sha256, and nothing missing that pip would install."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
PLATFORM = (platform.machine(), platform.system(), sys.version_info[:2])


def locked():
    """Name to version; every entry of the lock has both and a hash."""
    text = "".join(x for x in LOCK.read_text().splitlines(True) if not x.startswith("#"))
    entries = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert len(entries) * 2 == len(text.splitlines())
    return {canonicalize_name(name): version for name, version in entries}


def test_no_address_of_an_index():
    assert "://" not in LOCK.read_text()


@pytest.mark.skipif(
    PLATFORM != ("x86_64", "Linux", (3, 11)), reason="the lock is of another platform"
)
def test_all_that_the_project_needs_is_in_it():
    """Else pip, which then demands hashes, refuses to install."""
    lock, waiting, seen = locked(), [("rdmdc", "test"), ("rdmdc", "slurm")], set()
    while waiting:
        name, extra = waiting.pop()
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": extra}):
                continue
            found = canonicalize_name(needed.name)
            assert found in lock, f"{name} needs {needed}"
            assert needed.specifier.contains(lock[found], prereleases=True), f"{name}: {needed}"
            for more in ["", *needed.extras]:
                if (found, more) not in seen:
                    seen.add((found, more))
                    try:
                        distribution(found)
                    except PackageNotFoundError:
                        continue  # of a test environment that leaves some out
                    waiting.append((found, more))
    assert len(seen) > 100
