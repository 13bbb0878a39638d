"""Artifacts come back bit for bit, and are the same bytes twice; what is refused, and why."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from kinds import KINDS, NAMES, NORMALISATION, OPTIONS, PARQUET, bits, everything

from rdmdc.errors import ArtifactError
from rdmdc.records import LabelledImages
from rdmdc.storage import provenance as provenance_module
from rdmdc.storage.images import load_poisons, load_synthetic, save_target
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import reading
from rdmdc.storage.rows import decoded
from rdmdc.storage.weights import load_weights


def decoding(kind):
    """What loads a file of the kind; of rows, what the child does, here: a child for each of
    thousands of files would take minutes."""
    if kind not in PARQUET:
        return KINDS[kind][1]

    def load(path):
        with pa.ipc.open_stream(decoded([str(path)], kind, {})) as stream:
            return stream.read_all().to_pandas(ignore_metadata=True)

    return load


# --- what is written -------------------------------------------------------------------------


@everything
def test_round_trip(saved, kind):
    _, load, record = KINDS[kind]
    assert bits(load(saved(kind))) == bits(record)


MAPPED = """
import resource, sys
from pathlib import Path
from rdmdc.storage.images import load_images
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
    save_target(path.with_name("other"), KINDS["target"][2], other)
    assert path.read_bytes() != path.with_name("other").read_bytes()


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
        load_poisons(saved("weights"))


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(saved, value):
    weights = {"linear.bias": torch.tensor([1.25, 2])}
    with pytest.raises(ArtifactError, match=r"linear\.bias holds NaN .*pretrain\.learning_rate"):
        saved("weights", record={"linear.bias": torch.tensor([1.25, value])})
    path = saved("weights", record=weights)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.25), struct.pack("<f", value)))
    with pytest.raises(ArtifactError, match=r"artifact: linear\.bias holds NaN or infinity; lower"):
        load_weights(path)


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
        load_synthetic(path)


def test_an_artifact_that_arrow_finds_no_thread_to_read_is_not_to_be_deleted(tmp_path):
    fault = "Unknown error: Failed to launch worker thread: Resource temporarily unavailable"
    told = pytest.raises(ArtifactError, match="could not start a thread")
    with told as caught, reading(tmp_path):
        raise pa.ArrowException(fault)
    assert "delete" not in str(caught.value)
