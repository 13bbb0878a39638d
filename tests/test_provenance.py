"""A sidecar says what its artifact is made from; its sha256 tells all damage."""

import hashlib
import json

import pytest
import torch
from kinds import OPTIONS, everything

from rdmdc.errors import ArtifactError
from rdmdc.storage.provenance import Provenance, verified


@everything
def test_provenance(saved, kind):
    path = saved(kind)
    notes = json.loads(path.with_name("artifact.provenance.json").read_bytes())
    assert notes["artifact"] == "artifact"
    assert notes["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    expected = hashlib.sha256(b"what it is made from").hexdigest()
    assert notes["inputs"] == {str(path.with_name("input")): expected}
    assert (notes["stage"], notes["options"], notes["code"]) == ("a stage", OPTIONS, "c0de")
    assert torch.__version__.startswith(notes["versions"]["torch"])
    assert notes["seconds"] >= 0
    assert notes["finished"].startswith("20")


@everything
def test_the_sha256_tells_all_damage(saved, kind):
    path = saved(kind)
    content = path.read_bytes()
    assert verified(path) == hashlib.sha256(content).hexdigest()
    for at in range(0, len(content), 101):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ArtifactError, match=r"artifact: damaged or changed.*; delete it"):
            Provenance.begin("next", {}, "", [path])


def test_a_file_without_provenance_is_taken_as_it_is(saved):
    path = saved("target")
    path.with_name("artifact.provenance.json").unlink()
    path.write_bytes(b"another")
    assert verified(path) == hashlib.sha256(b"another").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_damaged_provenance(saved, content):
    path = saved("target")
    path.with_name("artifact.provenance.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"artifact\.provenance\.json: damaged"):
        verified(path)
