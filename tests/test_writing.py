"""Artifacts are written whole or not at all, and nothing is pickled."""

import ast
import errno
import json
import os
import resource
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch
from kinds import everything

from rdmdc.errors import ArtifactError
from rdmdc.storage import tensors
from rdmdc.storage.writing import save_bytes, write


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_the_writer_writes_what_the_library_would(tmp_path, shape):
    """Bit by bit, with names and metadata that need escaping and padding."""
    values = {
        "b": torch.ones(shape),
        "a ä": torch.ones(shape, dtype=torch.uint8),
        'c"': torch.ones(shape, dtype=torch.int64),
        "a": torch.ones(3, 4, 2).transpose(0, 1),
    }
    for length in range(8):
        metadata = json.dumps({"name": "Käfer\n" + length * "x"}, ensure_ascii=False)
        with open(tmp_path / "x", "wb") as file:
            tensors._fill(file, values, metadata)
        whole = {name: value.contiguous() for name, value in values.items()}
        expected = safetensors.torch.save(whole, {"rdmdc": metadata})
        assert (tmp_path / "x").read_bytes() == expected


def test_files_have_the_permissions_of_any_other(saved, tmp_path):
    (tmp_path / "plain").touch()
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    for path in (saved("target"), saved("target").with_name("artifact.provenance.json")):
        assert stat.S_IMODE(path.stat().st_mode) == wanted


@everything
@pytest.mark.parametrize("replacing", [False, True])
def test_full_disk_when_flushing(saved, kind, replacing, monkeypatch, tmp_path):
    if replacing:
        saved(kind)
    before = listing(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError) as caught:
        saved(kind)
    assert str(caught.value) == (
        f"{tmp_path}/target=3/artifact: cannot be written: No space left on device; free some"
        " space or mend the folder's permissions, then run again"
    )
    assert listing(tmp_path) == before


@everything
@pytest.mark.parametrize("replacing", [False, True])
def test_no_room_for_more_than_some_bytes(saved, kind, replacing, tmp_path):
    """A limit of the system on the size of files, which each format's own writer meets."""
    if replacing:
        saved(kind)
    before = listing(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=r"artifact: cannot be written: .*; free some"):
            saved(kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError("a bug"), full])
def test_interrupted(saved, provenance, interruption, tmp_path):
    path = saved("target")
    before = listing(tmp_path)

    def fill(file):
        file.write(b"half")
        if interruption is full:
            full()
        raise interruption

    expected = ArtifactError if interruption is full else (KeyboardInterrupt, RuntimeError)
    with pytest.raises(expected):
        write(path, provenance, fill)
    assert listing(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(saved, tmp_path):
    (tmp_path / "target=3").chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="artifact: cannot be written: Permission denied"):
            saved("target")
    finally:
        (tmp_path / "target=3").chmod(0o700)


def test_a_file_where_the_folder_should_be(saved, provenance, tmp_path):
    path = tmp_path / "target=3" / "input" / "artifact"
    with pytest.raises(ArtifactError, match=r"artifact: cannot be written: .*; free some"):
        save_bytes(path, b"a table", provenance)


def test_bytes_and_new_folders(provenance, tmp_path):
    path = tmp_path / "figures" / "targets.png"
    save_bytes(path, b"a figure", provenance)
    assert path.read_bytes() == b"a figure"
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + ".provenance.json"}


UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE |= {"torch.load", "torch.save", "np.load", "np.save", "pd.read_pickle", "eval", "exec"}


@pytest.mark.parametrize("path", sorted(Path(tensors.__file__).parent.glob("*.py")), ids=str)
def test_nothing_is_unpickled(path):
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            used |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute | ast.Name):
            used.add(ast.unparse(node))
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"
    assert not used & UNSAFE
