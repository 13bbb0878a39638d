"""Artifacts come back bit for bit, are the same bytes twice, and are written whole or not."""

import ast
import errno
import hashlib
import json
import os
import resource
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    Screening,
    SyntheticSet,
    Target,
)
from rdmdc.storage import artifacts, tensors
from rdmdc.storage import provenance as provenance_module
from rdmdc.storage.artifacts import ArtifactError, Provenance
from rdmdc.storage.rows import decoded

PLAIN = Provenance("a stage", {}, "c0de", {}, 0.0)
NORMALISATION = Normalisation((0.1, 1 / 3, 0.7), (0.2, 1e-3, 1 / 7))
NAMES = ("ant", "Käfer, blue", "cat")
OPTIONS = {"dataset": {"name": "emoji", "classes": ["ant", "cat"]}, "seed": 3, "rate": 0.1}


def pixels(*shape):
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def inputs():
    """Floats whose bits are easily lost: a negative zero, a denormal, a large one."""
    drawn = torch.randn(6, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    drawn[0, 0, 0, :3] = torch.tensor([-0.0, 1e-42, 3e38])
    return drawn


def rows(kind):
    """Functions that save and load rows of a kind, as those of the other records do."""

    def save(path, record, provenance):
        artifacts.save_rows(path, kind, record, provenance)

    def load(path, expect=None):
        return artifacts.load_rows(path, kind, expect)

    return save, load


NUMBERS = ("target", "true_label", "adversarial_label", "predicted_label")
SHARES = ("adversarial_probability", "true_probability", "margin")
SCORES = pd.DataFrame(
    {
        "network": [0, 1],
        "accuracy": [0.1, 1 / 3],
        **{name: [number, 2] for number, name in enumerate(NUMBERS)},
        **{name: [0.1, float("nan")] for name in SHARES},
        "condition": ["a", "b"],
        "run": [0, 0],
        "instance": ["dm", "dm"],
    }
)
KINDS = {
    "images": (
        artifacts.save_images,
        artifacts.load_images,
        LabelledImages(pixels(5, 3, 2, 4), torch.tensor([0, 0, 1, 2, 2]), NAMES, NORMALISATION),
    ),
    "target": (
        artifacts.save_target,
        artifacts.load_target,
        Target(seed=3, index=7, pixels=pixels(3, 2, 4), true_label=2, adversarial_label=0),
    ),
    "poisons": (
        artifacts.save_poisons,
        artifacts.load_poisons,
        PoisonSet(torch.tensor([4, 2]), torch.tensor([2, 1]), pixels(2, 3, 2, 4)),
    ),
    "synthetic set": (
        artifacts.save_synthetic,
        artifacts.load_synthetic,
        SyntheticSet(inputs(), torch.arange(3).repeat_interleave(2), NAMES, NORMALISATION),
    ),
    "scores": (*rows("scores"), SCORES),
    "screening": (
        lambda path, record, provenance: artifacts.save_screening(
            path, record, torch.tensor([0, 0, 1, 1, 1]), provenance
        ),
        artifacts.load_screening,
        Screening(
            torch.tensor([0.5, 1 / 3, -2.0, 7e300, 7e300], dtype=torch.float64),
            torch.tensor([True, True, True, False, True]),
        ),
    ),
    "crafting trace": (*rows("crafting trace"), pd.DataFrame()),
    "weights": (
        artifacts.save_weights,
        artifacts.load_weights,
        {"linear.weight": inputs()[0], "norm.bias": torch.zeros(3)},
    ),
}
PARQUET = ("scores", "screening", "crafting trace")
everything = pytest.mark.parametrize("kind", KINDS)


def bits(record):
    """All that a record holds, in a form that == compares bit by bit."""
    if isinstance(record, torch.Tensor):
        return record.dtype, record.shape, record.contiguous().numpy().tobytes()
    if isinstance(record, pd.DataFrame):
        return [
            (name, c.dtype, pa.array(c.tolist(), from_pandas=True)) for name, c in record.items()
        ]
    if isinstance(record, Normalisation | tuple | int):
        return record
    fields = record if isinstance(record, dict) else vars(record)
    return [(name, bits(value)) for name, value in fields.items()]


@pytest.fixture
def provenance(tmp_path):
    """Of a job with one input, which lies with the artifacts in a folder as the workflow's are."""
    folder = tmp_path / "target=3"
    folder.mkdir()
    (folder / "input").write_bytes(b"what it is made from")
    return Provenance.begin("a stage", OPTIONS, "c0de", [folder / "input"])


@pytest.fixture
def saved(tmp_path, provenance):
    """Saves the example of a kind; its path."""

    def save(kind, name="artifact", record=None):
        path = tmp_path / "target=3" / name
        KINDS[kind][0](path, KINDS[kind][2] if record is None else record, provenance)
        return path

    return save


def decoding(kind):
    """What loads a file of the kind; of rows, what the child does, here: a child for each of
    thousands of files would take minutes."""
    if kind not in PARQUET:
        return KINDS[kind][1]

    def load(path):
        with pa.ipc.open_stream(decoded([str(path)], kind, {})) as stream:
            return stream.read_all().to_pandas(ignore_metadata=True)

    return load


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is written -------------------------------------------------------------------------


@everything
def test_round_trip(saved, kind):
    _, load, record = KINDS[kind]
    assert bits(load(saved(kind))) == bits(record)


MAPPED = """
import resource, sys
from pathlib import Path
from rdmdc.storage.artifacts import load_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = load_images(Path(sys.argv[1]))
part = int(images.pixels[70_000:70_100].sum())
print(part, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_pixels_are_mapped_not_copied(saved):
    """A slice of a file of 307 MB takes a few MB of memory."""
    labels = torch.arange(3).repeat_interleave(33_333)
    large = LabelledImages(
        torch.ones(len(labels), 3, 32, 32, dtype=torch.uint8), labels, NAMES, NORMALISATION
    )
    path = saved("images", record=large)
    command = [sys.executable, "-c", MAPPED, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    part, kilobytes = map(int, run.stdout.split())
    assert part == 100 * 3 * 32 * 32
    assert kilobytes < 30_000


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


def test_a_screening_can_be_read_by_people(saved):
    """Ranks count within the class from the most suspicious; of equal scores the first is first."""
    rows = pd.read_parquet(saved("screening"))
    assert list(rows.columns) == ["index", "label", "score", "rank", "kept"]
    assert rows["index"].tolist() == [0, 1, 2, 3, 4]
    assert rows["rank"].tolist() == [0, 1, 2, 0, 1]
    assert rows["kept"].tolist() == [True, True, True, False, True]


def test_a_screening_of_another_split(saved, train):
    with pytest.raises(ArtifactError, match="5 screened images, 39 in the training split"):
        artifacts.load_screening(saved("screening"), train=train)


def test_rows_of_several_files(saved):
    """Each has its own, also where their columns differ; a fault names its file."""
    paths = [saved("scores", name) for name in "abc"]
    assert list(map(bits, artifacts.load_all_rows(paths, "scores"))) == [bits(SCORES)] * 3
    assert artifacts.load_all_rows([], "scores") == []
    saved("target", "b")
    with pytest.raises(ArtifactError, match="/b: damaged or of another kind"):
        artifacts.load_all_rows(paths, "scores")
    frames = [pd.DataFrame({"a": [1.5]}), pd.DataFrame(), pd.DataFrame({"b": ["x", "y"]})]
    for path, frame in zip(paths, frames, strict=True):
        artifacts.save_rows(path, "trace", frame, PLAIN)
    found = artifacts.load_all_rows(paths, "trace")
    assert list(map(bits, found)) == list(map(bits, frames))


@everything
def test_same_bytes_at_another_time_and_place(saved, kind, monkeypatch):
    first = saved(kind, "first")
    monkeypatch.setattr(provenance_module.time, "time", lambda: 2e9)
    monkeypatch.setattr(provenance_module.time, "monotonic", lambda: 2e9)
    monkeypatch.setattr(provenance_module.socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(provenance_module, "_commit", lambda: "another")
    second = saved(kind, "second")
    assert first.read_bytes() == second.read_bytes()
    notes = [json.loads(Path(f"{path}.provenance.json").read_bytes()) for path in (first, second)]
    assert all(notes[0][key] != notes[1][key] for key in ("host", "commit", "seconds"))


def test_other_options_give_other_bytes(saved, provenance):
    path = saved("target")
    other = Provenance("a stage", {**OPTIONS, "seed": 4}, "c0de", {}, 0.0)
    artifacts.save_target(path.with_name("other"), KINDS["target"][2], other)
    assert path.read_bytes() != path.with_name("other").read_bytes()


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
def test_metadata_name_kind_and_options(saved, kind):
    path = saved(kind)
    if kind in PARQUET:
        raw = pq.read_schema(path).metadata[b"rdmdc"]
    else:
        with safetensors.safe_open(path, "pt") as file:
            raw = file.metadata()["rdmdc"]
    metadata = json.loads(raw)
    assert (metadata["kind"], metadata["stage"]) == (kind, "a stage")
    assert metadata["options"] == OPTIONS


def test_files_have_the_permissions_of_any_other(saved, tmp_path):
    (tmp_path / "plain").touch()
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    for path in (saved("target"), saved("target").with_name("artifact.provenance.json")):
        assert stat.S_IMODE(path.stat().st_mode) == wanted


# --- what is refused -------------------------------------------------------------------------


@everything
def test_options_that_the_job_expects(saved, kind):
    path, load = saved(kind), KINDS[kind][1]
    load(path, {"seed": 3, "dataset": OPTIONS["dataset"]})
    for key, wanted, found in (("seed", 4, "3"), ("rate", "0.1", "0.1"), ("network", 8, "null")):
        with pytest.raises(ArtifactError) as caught:
            load(path, {"dataset": OPTIONS["dataset"], key: wanted})
        assert str(caught.value) == (
            f"{path}: made with {key} = {found}, this job has {json.dumps(wanted)}; delete it and"
            " run snakemake again"
        )


@everything
@pytest.mark.parametrize("other", KINDS)
def test_another_kind(saved, kind, other):
    if kind != other:
        with pytest.raises(ArtifactError, match=r"artifact: .*(expected|another kind).*delete it"):
            KINDS[other][1](saved(kind))


def test_another_kind_is_named(saved):
    with pytest.raises(ArtifactError, match="holds weights, expected poisons; mend the path"):
        artifacts.load_poisons(saved("weights"))


@everything
def test_a_file_that_is_not_this_packages(tmp_path, kind):
    path = tmp_path / "foreign"
    if kind in PARQUET:
        pq.write_table(pa.table({"label": [1, 2]}), path)
    else:
        safetensors.torch.save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ArtifactError, match=f"foreign: not an artifact of rdmdc.*expected {kind}"):
        KINDS[kind][1](path)


@everything
def test_missing_or_a_folder(tmp_path, kind):
    with pytest.raises(ArtifactError, match="nothing: no such file; run snakemake to make it"):
        KINDS[kind][1](tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=f"{tmp_path}: damaged or of another kind"):
        KINDS[kind][1](tmp_path)


@everything
def test_truncated(saved, kind):
    path, load = saved(kind), decoding(kind)
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        damaged = path.with_name("damaged")  # a new file: the old one may be mapped
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=f"{damaged}: .*; delete it and run"):
            load(damaged)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PARQUET])
def test_flipped_bits(saved, kind):
    """No damage ends otherwise than in an ArtifactError or a record. Safetensors have no checksum:
    of the values only the sha256 tells. tests/fuzz.py does the same to rows, which may crash."""
    path, load = saved(kind), KINDS[kind][1]
    content = path.read_bytes()
    refused = 0
    for at in range(0, len(content), 3):
        for mask in (0x01, 0x80, 0xFF):
            damaged = path.with_name("damaged")
            damaged.unlink(missing_ok=True)
            damaged.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
            try:
                load(damaged)
            except ArtifactError as error:
                assert str(error).startswith(f"{damaged}: ")
                refused += 1
    assert refused > len(content) / 4


@everything
def test_the_sha256_tells_all_damage(saved, kind):
    path = saved(kind)
    content = path.read_bytes()
    assert artifacts.verified(path) == hashlib.sha256(content).hexdigest()
    for at in range(0, len(content), 101):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ArtifactError, match=r"artifact: damaged or changed.*; delete it"):
            Provenance.begin("next", {}, "", [path])


def test_a_file_without_provenance_is_taken_as_it_is(saved):
    path = saved("target")
    path.with_name("artifact.provenance.json").unlink()
    path.write_bytes(b"another")
    assert artifacts.verified(path) == hashlib.sha256(b"another").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_damaged_provenance(saved, content):
    path = saved("target")
    path.with_name("artifact.provenance.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"artifact\.provenance\.json: damaged"):
        artifacts.verified(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(saved, value):
    weights = {"linear.bias": torch.tensor([1.25, 2])}
    with pytest.raises(ArtifactError, match=r"linear\.bias holds NaN .*pretrain\.learning_rate"):
        saved("weights", record={"linear.bias": torch.tensor([1.25, value])})
    path = saved("weights", record=weights)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.25), struct.pack("<f", value)))
    with pytest.raises(ArtifactError, match=r"artifact: linear\.bias holds NaN or infinity; lower"):
        artifacts.load_weights(path)


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("inputs", lambda v: torch.where(v == v.max(), float("nan"), v), "1 of 6 .* NaN"),
        ("inputs", lambda v: torch.where(v == v.max(), float("inf"), v), "1 of 6 .* NaN"),
        ("inputs", lambda v: v.double(), r"inputs are torch\.float64, not float32"),
        ("inputs", lambda v: v[:5], "as many labels as inputs"),
        ("inputs", lambda v: v[:, :, 0], r"inputs have shape \(6, 3, 4\), not N,C,H,W"),
        ("inputs", lambda v: v[..., :0], r"shape \(6, 3, 2, 0\), which holds no values"),
        ("labels", lambda v: v.flip(0) * 0, r"images per class differ: \[6, 0, 0\]"),
        (
            "labels",
            lambda v: v + (1 << 40),
            r"labels 1099511627776\.\.\d+ outside 0\.\.2",
        ),
        ("labels", lambda v: v.int(), r"labels are torch\.int32, not int64"),
        ("labels", lambda v: v[:, None], "damaged"),
        ("more", lambda v: v, "tensors inputs, labels, more, not inputs, labels"),
    ],
)
def test_content_that_contradicts_itself(saved, name, change, fault):
    path = saved("synthetic set")
    with safetensors.safe_open(path, "pt") as file:
        values = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    values[name] = change(values.get(name, torch.zeros(2))).contiguous()
    safetensors.torch.save_file(values, path, metadata)
    with pytest.raises(ArtifactError, match=rf"artifact: .*{fault}.*; delete it and run"):
        artifacts.load_synthetic(path)


# --- what cannot be written ------------------------------------------------------------------


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
        artifacts.write(path, provenance, fill)
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
        artifacts.save_bytes(path, b"a table", provenance)


def test_bytes_and_new_folders(provenance, tmp_path):
    path = tmp_path / "figures" / "targets.png"
    artifacts.save_bytes(path, b"a figure", provenance)
    assert path.read_bytes() == b"a figure"
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + ".provenance.json"}


# --- no pickles ------------------------------------------------------------------------------

UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE |= {"torch.load", "torch.save", "np.load", "np.save", "pd.read_pickle", "eval", "exec"}


@pytest.mark.parametrize("path", sorted(Path(artifacts.__file__).parent.glob("*.py")), ids=str)
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
