"""Nothing is lost or half written when the machine fails: the cheap ones of docs/reliability.md."""

import contextlib
import hashlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
from pathlib import Path

import pytest
import torch
from test_command_line import CONFIG, jobs, listing, world  # noqa: F401
from test_datasets import COMMON

from rdmdc.__main__ import main
from rdmdc.datasets import decoding as datasets
from rdmdc.datasets.split import DatasetError
from rdmdc.errors import ArtifactError
from rdmdc.storage import provenance
from rdmdc.storage.provenance import Provenance, verified
from rdmdc.storage.writing import save_bytes
from rdmdc.workflow.stages import condense

BEGUN = Provenance("a stage", {"seed": 0}, "c0de", {}, 0.0)


@contextlib.contextmanager
def limited(kind, value):
    limits = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, limits)


# --- a full disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("job", jobs(CONFIG, Path(), Path()))
def test_no_room_at_each_stage(world, tmp_path, capsys, job):  # noqa: F811
    words = jobs(CONFIG, world.folder, tmp_path)[job]
    before = listing(world.folder)
    with limited(resource.RLIMIT_FSIZE, 64):
        assert main(words) == 1
    fault = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        rf"rdmdc stage {words[1]}: .*: cannot be written: File too large; free some", fault
    )
    assert listing(tmp_path) == {}
    assert listing(world.folder) == before


def test_no_room_for_the_sidecar(tmp_path):
    """The artifact itself would fit; neither is left."""
    with (
        limited(resource.RLIMIT_FSIZE, 64),
        pytest.raises(ArtifactError, match="cannot be written"),
    ):
        save_bytes(tmp_path / "table.csv", b"a,b\n", BEGUN)
    assert listing(tmp_path) == {}


# --- a job that is killed --------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.writing import write
def fill(file):
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
write(Path(sys.argv[1]), Provenance("a stage", {}, "c0de", {}, 0.0), fill)
"""


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_while_writing(tmp_path, monkeypatch, capsys, replacing):
    """What was there stays; what is half written is hidden, and no artifact."""
    monkeypatch.chdir(tmp_path)
    if replacing:
        save_bytes(Path("table.csv"), b"old", BEGUN)
    before = listing(tmp_path)
    command = [sys.executable, "-c", WRITER, "table.csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    left = {name: content for name, content in listing(tmp_path).items() if name not in before}
    ((name, content),) = left.items()
    assert re.fullmatch(r"\.table\.csv\.\w{8}\.partial", Path(name).name)
    assert content == b"half"
    assert main(["verify", "."]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{Path(name).name}: half written: its job runs or was killed; run")
    assert said[1] == f"{int(replacing)} artifacts, 1 findings"
    save_bytes(Path("table.csv"), b"new", BEGUN)
    assert main(["verify", "."]) == 0
    assert {Path(n).name for n in listing(tmp_path)} == {"table.csv", "table.csv.provenance.json"}


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("before", [0, 1])
def test_what_a_killed_job_left_goes_when_it_runs_again(tmp_path, function, before):
    """Killed as it flushes or renames the artifact or its sidecar. A neighbour's file stays."""
    path, neighbour = tmp_path / "a=[1].csv", tmp_path / ".a=[1].csv.gz.abcdefgh.partial"
    neighbour.touch()
    honest, calls = getattr(os, function), []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) > before:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(*arguments)

    job = os.fork()
    if job == 0:
        try:
            setattr(os, function, killed)
            save_bytes(path, b"new", BEGUN)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.partial"))) > 1
    save_bytes(path, b"new", BEGUN)
    names = {path.name, f"{path.name}.provenance.json", neighbour.name}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_between_sidecar_and_artifact(tmp_path, monkeypatch, capsys, replacing):
    """The one moment in which they do not fit: verify tells, and so does whoever reads it."""
    path = tmp_path / "table.csv"
    if replacing:
        save_bytes(path, b"old", BEGUN)
    replace = os.replace

    def killed(source, target):
        if Path(target) == path:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_bytes(path, b"new!", BEGUN)
    assert main(["verify", str(tmp_path)]) == 1
    if replacing:
        with pytest.raises(ArtifactError, match="damaged or changed"):
            verified(path)
    monkeypatch.setattr(os, "replace", replace)
    save_bytes(path, b"new!", BEGUN)
    assert main(["verify", str(tmp_path)]) == 0


# --- a clock that jumps ----------------------------------------------------------------------


def test_a_clock_that_jumps_back(tmp_path, monkeypatch):
    """Neither an artifact's bytes nor the seconds that it took come from the clock."""
    begun = Provenance.begin("a stage", {}, "c0de", [])
    now = time.time()
    monkeypatch.setattr(provenance.time, "time", lambda: now - 10**9)
    save_bytes(tmp_path / "a", b"a", begun)
    assert b'"seconds": 0.' in (tmp_path / "a.provenance.json").read_bytes()


# --- too little memory -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 20. GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_is_one_line(world, tmp_path, monkeypatch, capsys, error):  # noqa: F811
    def fails(*_):
        raise error

    monkeypatch.setattr(condense, "plugin_of", fails)
    assert main(jobs(CONFIG, world.folder, tmp_path)["condense"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"rdmdc stage condense: too little memory \(.*\); run fewer jobs .*\n", said
    )
    assert listing(tmp_path) == {}


def test_other_errors_are_not_taken_for_it(world, tmp_path, monkeypatch):  # noqa: F811
    def fails(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(condense, "plugin_of", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main(jobs(CONFIG, world.folder, tmp_path)["condense"])


def test_torch_really_says_so(tmp_path):
    code = (
        "import resource, torch, sys; from rdmdc import __main__ as m;"
        "from rdmdc.storage import verify;"
        "verify.verify = lambda args: torch.zeros(1 << 34);"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34));"
        "sys.exit(m.main(['verify', '.']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("rdmdc verify: too little memory (")


# --- an interrupted download -----------------------------------------------------------------


def archive(folder, monkeypatch):
    """A CIFAR-10 of ten images, made known to torchvision; the archive's bytes."""
    import pickle

    from torchvision.datasets import CIFAR10

    content = {"data": [[i] * 3072 for i in range(10)], "labels": list(range(10))}
    import numpy as np

    content["data"] = np.array(content["data"], np.uint8)
    files = {
        "data_batch_1": content,
        "test_batch": content,
        "batches.meta": {"label_names": [f"class {i}" for i in range(10)]},
    }
    buffer, md5s = io.BytesIO(), {}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, value in files.items():
            data = pickle.dumps(value)
            md5s[name] = hashlib.md5(data).hexdigest()
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5s["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5s["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5s["batches.meta"]})
    return buffer.getvalue()


class Response(io.BytesIO):
    """What urlopen returns, that breaks off where it is told to."""

    def __init__(self, content, end=None, broken=False):
        super().__init__(content[:end])
        self.url, self.headers, self.length = "https://there/", {}, len(content)
        self.broken = broken

    def read(self, size=-1):
        part = super().read(size)
        if not part and self.broken:
            raise urllib.error.URLError("connection reset")
        return part


@pytest.mark.parametrize("how", ["breaks off", "ends early", "half unpacked"])
def test_interrupted_download(tmp_path, monkeypatch, how):
    """An error that says what to do; the next run downloads and unpacks again by itself."""
    content = archive(tmp_path, monkeypatch)
    half = Response(content, len(content) // 2, how == "breaks off")
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: half)
    options = {"source": "torchvision", "name": "CIFAR10", "root": str(tmp_path), **COMMON}
    if how == "half unpacked":
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
        (tmp_path / "cifar-10-batches-py").mkdir()
        (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    else:
        with pytest.raises(DatasetError, match=r"CIFAR10 is not whole in .* cannot be downloaded"):
            datasets.load(options)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: Response(content))
    train, _ = datasets.load(options)
    assert train.counts().tolist() == [1] * 10
