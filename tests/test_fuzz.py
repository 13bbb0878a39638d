"""300 mutants of each reader's file: refused, or what was saved, or another by its sha256."""

import os
import sys
from importlib import import_module
from pathlib import Path

import fuzz
import pytest


@pytest.fixture(scope="module")
def outcomes():
    return fuzz.fuzz(300, 0, list(fuzz.readers()))


@pytest.mark.parametrize("reader", fuzz.readers())
def test_mutants(outcomes, reader):
    outcome = outcomes[reader]
    assert outcome.counts.total() == 300
    assert not outcome.failures, outcome.failures[:3]
    assert outcome.counts["refused"] > 60  # else the mutations miss what matters


def test_mutants_can_be_made_again():
    original = bytes(range(256)) * 4
    made = [fuzz.mutant(original, "images", 0, index) for index in range(300)]
    assert made == [fuzz.mutant(original, "images", 0, index) for index in range(300)]
    assert len(set(made)) > 280
    assert made[0] != fuzz.mutant(original, "images", 1, 0)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("os.kill(os.getpid(), 11)", "crash"),
        ("time.sleep(9)", "hang"),
        ("bytearray(1 << 40)", "memory"),
        ("[][0]", "exception"),
        ("return 1", "wrong"),
    ],
)
def test_each_failure_is_seen_and_named(tmp_path, monkeypatch, fault, what):
    """In a copy whose reader of sidecars fails at its third mutant."""
    source = Path(fuzz.__file__).read_text()
    for old, new in (
        ("SECONDS = 20", "SECONDS = 2"),
        ("(path, value)\n\n\ndef dataset", "(path, faulty)\n\n\ndef dataset"),
        ("any(list(verify.findings(path, verify._sha256)) for path in both)", "False"),
        (
            '    path = provenance.sidecar_of(folder / "target")\n',
            '    path, calls = provenance.sidecar_of(folder / "target"), []\n\n'
            "    def faulty():\n"
            "        calls.append(0)\n"
            f"        if len(calls) == 4: {fault}\n"
            "        return 0\n\n",
        ),
    ):
        assert old in source
        source = source.replace(old, new)
    (tmp_path / "faulty_fuzz.py").write_text(f"import os\n{source}")
    here = [str(tmp_path), str(Path(fuzz.__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*here, *sys.path]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty_fuzz", raising=False)
    outcome = import_module("faulty_fuzz").fuzz(4, 0, ["sidecar"])["sidecar"]
    assert [(index, kind) for index, kind, _ in outcome.failures] == [(2, what)]
    assert outcome.counts.total() == 4
