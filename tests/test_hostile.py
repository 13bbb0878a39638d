"""Files that are well formed but lie: refused at once, with little memory, by every reader."""

import io
import json
import os
import resource
import struct
import time
import zlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from kinds import KINDS, NAMES, NORMALISATION, OPTIONS, inputs
from PIL import Image
from test_datasets import encoded, files, image, table, tree  # noqa: F401

from rdmdc.datasets import decoding
from rdmdc.datasets.preparing import prepare
from rdmdc.datasets.split import DatasetError
from rdmdc.errors import ArtifactError
from rdmdc.records import Normalisation, RecordError, SyntheticSet, Target
from rdmdc.sources import folder, parquet
from rdmdc.storage import rows
from rdmdc.storage.images import load_images
from rdmdc.storage.provenance import Provenance, verified
from rdmdc.storage.rows import load_rows
from rdmdc.storage.weights import load_weights

BEGUN = Provenance("a stage", OPTIONS, "c0de", {}, 0.0)


@pytest.fixture(autouse=True)
def at_once_and_with_little_memory():
    """A lie of gigabytes shows as such."""
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 600 << 10
    assert time.monotonic() - began < 20


def rewritten(path, made_as, /, **changes):
    """A safetensors artifact with other metadata."""
    KINDS[made_as][0](path, KINDS[made_as][2], BEGUN)
    with safetensors.safe_open(path, "pt") as file:
        values = {name: file.get_tensor(name).clone() for name in file.offset_keys()}
        metadata = {**json.loads(file.metadata()["rdmdc"]), **changes}
    safetensors.torch.save_file(values, path, {"rdmdc": json.dumps(metadata)})
    return path


# --- metadata --------------------------------------------------------------------------------

NAMED = ["images", "synthetic set"]


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": "abc"},
        {"class_names": ["a", "b"]},
        {"class_names": ["a", "b", "c", "d"]},
        {"class_names": [1, 2, 3]},
        {"class_names": None},
        {"class_names": []},
        {"mean": [float("nan")] * 3},
        {"mean": [float("inf")] * 3},
        {"std": [float("inf")] * 3},
        {"std": [0, 1, 1]},
        {"mean": [10**400] * 3},
        {"mean": "abc"},
        {"mean": [1], "std": [1]},
        {"mean": {}},
    ],
)
def test_names_and_normalisations_that_do_not_fit(tmp_path, kind, changes):
    with pytest.raises(ArtifactError, match=r"x: .*; delete it"):
        KINDS[kind][1](rewritten(tmp_path / "x", kind, **changes))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"\xff",
    ],
)
def test_metadata_that_are_none(tmp_path, raw):
    content = pa.table({"a": [1]}).replace_schema_metadata({b"rdmdc": raw})
    pq.write_table(content, tmp_path / "x")
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        load_rows(tmp_path / "x", "scores")


def test_metadata_that_are_too_large(tmp_path):
    for size, fault in ((5 << 20, "metadata of more than 4194304"), (9 << 20, "header of more")):
        with pytest.raises(ArtifactError, match=fault):
            load_images(rewritten(tmp_path / "x", "images", more="a" * size))


def test_what_a_file_says_cannot_flood_or_steer_a_terminal(tmp_path, capsys):
    from rdmdc.__main__ import main

    for kind in ("\x1b[2J", "a" * 10**6, "\udc80"):
        path = rewritten(tmp_path / "x", "target", kind=kind)
        main(["stage", "targets-figure", "--options", "{}", "--test", str(path),
              "--targets", str(path), "--png", "a", "--svg", "b"])  # fmt: skip
        said = capsys.readouterr().err
        assert len(said) < 3000 and said[:-1].isprintable() and said.count("\n") == 1
        path.unlink()


# --- records ---------------------------------------------------------------------------------


def synthetic(values, labels):
    return SyntheticSet(values, torch.tensor(labels), NAMES, NORMALISATION)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Normalisation((float("nan"),), (1.0,)), "not finite"),
        (lambda: Normalisation((0.0,), (float("inf"),)), "not finite"),
        (lambda: synthetic(inputs(), [0, 1, 2, 0, 1, 2]), "images are not sorted by class"),
        (lambda: synthetic(inputs()[:, :1], [0, 0, 1, 1, 2, 2]), "3 normalisation means, 1 chann"),
        (lambda: Target(0, -1, torch.zeros(3, 2, 2, dtype=torch.uint8), 0, 1), "negative"),
        (lambda: Target(0, 1, torch.zeros(3, 2, 2, dtype=torch.uint8), 0, -1), "negative"),
    ],
)
def test_records_that_contradict_themselves(make, fault):
    with pytest.raises(RecordError, match=fault):
        make()


# --- Parquet ---------------------------------------------------------------------------------


def lying(path, kind, columns, **options):
    """A Parquet artifact with other columns."""
    metadata = {b"rdmdc": json.dumps({"kind": kind, "options": OPTIONS})}
    content = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(content, path, compression="zstd", **options)
    return path


def test_millions_of_rows_in_a_few_bytes(tmp_path):
    path = lying(tmp_path / "x", "trace", {"class": np.zeros(40_000_000, np.int64)})
    assert path.stat().st_size < 200_000
    with pytest.raises(ArtifactError, match=r"x: (too little memory|needs more than)"):
        load_rows(path, "trace")


def test_a_page_that_decompresses_to_far_more(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MEGABYTES", 40)
    values = pa.array([bytes(60_000_000).decode()])
    path = lying(tmp_path / "x", "trace", {"condition": values}, use_dictionary=False)
    assert path.stat().st_size < 100_000
    with pytest.raises(ArtifactError, match=r"x: (too little memory|needs more than)"):
        load_rows(path, "trace")


def test_a_long_text_in_every_row(tmp_path):
    texts = pa.array(["a" * 500_000]).take(pa.array(np.zeros(800, np.int64)))
    path = lying(tmp_path / "x", "trace", {"condition": texts})
    assert path.stat().st_size < 10_000
    with pytest.raises(ArtifactError, match=r"x: (too little memory|needs more than)"):
        load_rows(path, "trace")


@pytest.mark.parametrize(
    "column",
    [[{"a": 1}], [[1, 2]], [b"bytes"], pa.array([1], pa.int8()), pa.array([0], pa.timestamp("s"))],
)
def test_columns_of_a_type_that_rows_never_have(tmp_path, column):
    with pytest.raises(ArtifactError, match=r"a column is none of .*int64"):
        load_rows(lying(tmp_path / "x", "trace", {"a": column}), "trace")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("what", KINDS)
def test_what_is_no_file(tmp_path, what, kind):
    path = tmp_path / "x"
    {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda p: p.symlink_to("/dev/zero")}[kind](
        path
    )
    with pytest.raises(ArtifactError, match=r"x: .*not a regular file"):
        KINDS[what][1](path)


# --- safetensors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"w": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}},
    ],
)
def test_headers_of_weights_that_lie(tmp_path, header):
    metadata = {"rdmdc": json.dumps({"kind": "weights", "options": OPTIONS})}
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        load_weights(tmp_path / "x")


@pytest.mark.parametrize("length", [2**63, 10**12, 100_000_001])
def test_headers_of_weights_that_are_too_long(tmp_path, length):
    with open(tmp_path / "x", "wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(200_000_000)  # takes no room on the disk
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        load_weights(tmp_path / "x")


def test_weights_are_loaded_without_running_code(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "x")
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        load_weights(tmp_path / "x")
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "x")


# --- data sets -------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    """Prepares a data set in a child, as the stage does."""
    return lambda options: prepare(options, tmp_path / "train", tmp_path / "test", BEGUN)


def test_millions_of_labels_in_a_few_bytes(files, prepared, monkeypatch):  # noqa: F811
    monkeypatch.setattr("rdmdc.datasets.preparing.MEGABYTES", 64)
    one = pa.array([{"bytes": b"a", "path": None}])
    rows = 12_000_000
    content = pa.table({"image": pa.nulls(rows, one.type), "label": np.zeros(rows, np.int64)})
    with pytest.raises(DatasetError, match=r"train.parquet: (too little memory|needs more than)"):
        prepared(files(train=content))


def test_one_large_image_in_every_row(files, prepared, monkeypatch):  # noqa: F811
    monkeypatch.setattr("rdmdc.datasets.preparing.MEGABYTES", 64)
    options, large = files(class_names=["a"]), table([bytes(4 << 20)] * 40, [0] * 40)
    for part in ("train", "test"):
        pq.write_table(large, options[part], dictionary_pagesize_limit=8 << 20, compression="zstd")
    assert Path(options["train"]).stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"train.parquet: (too little memory|needs more than)"):
        prepared(options)


@pytest.mark.parametrize("there", [0, 2])
def test_fewer_images_than_labels(files, monkeypatch, there):  # noqa: F811
    """As a damaged file may hold: nothing may be delivered in the missing images' place."""
    honest = parquet._split

    def split(*arguments):
        whole = honest(*arguments)
        return replace(whole, images=lambda wanted: islice(whole.images(wanted), there))

    monkeypatch.setattr(parquet, "_split", split)
    with pytest.raises(DatasetError, match=rf"train.parquet: {there} images for 8 labels; damaged"):
        decoding.load(files())


def test_more_pixels_than_memory(files, monkeypatch):  # noqa: F811
    monkeypatch.setattr(decoding.os, "sysconf", lambda name: 10)
    with pytest.raises(
        DatasetError, match=r"864 bytes of pixels, this machine has 100 .*per_class"
    ):
        decoding.load(files())


@pytest.mark.parametrize("names", ["[" * 100_000, '{"a": ' * 100_000])
@pytest.mark.parametrize("key", ["class_names", "huggingface"])
def test_metadata_nested_too_deep(files, names, key):  # noqa: F811
    content = table([encoded(image(i)) for i in range(3)], [0, 1, 2], {key: names})
    with pytest.raises(DatasetError, match="do not name the classes"):
        decoding.load(files(train=content))


def png(width, height, rows):
    """A PNG that claims a size, with so many empty rows."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes((3 * width + 1) * rows), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9500, 20_000, 2**31 - 1])
def test_images_that_claim_to_be_huge(files, side):  # noqa: F811
    content = table([png(side, side, 0)] + [encoded(image(i)) for i in range(2)], [0, 1, 2])
    with pytest.raises(DatasetError, match="row 0: undecodable image"):
        decoding.load(files(train=content))


def test_a_text_chunk_that_decompresses_to_far_more(files):  # noqa: F811
    buffer = io.BytesIO()
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * (80 << 20), zip=True)
    Image.new("RGB", (6, 6)).save(buffer, "PNG", pnginfo=info)
    content = table([buffer.getvalue()] + [encoded(image(i)) for i in range(2)], [0, 1, 2])
    with pytest.raises(DatasetError, match="row 0: undecodable image"):
        decoding.load(files(train=content))


@pytest.mark.parametrize("kind", ["pipe", "device", "enormous"])
def test_files_in_a_class_folder_that_do_not_end(tree, tmp_path, kind, monkeypatch):  # noqa: F811
    options = tree()
    path = tmp_path / "train" / "cat" / "0.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(folder.LARGEST + 1)
    with pytest.raises(
        DatasetError, match=r"cat/0.png: (not a regular file; remove|larger than 67)"
    ):
        decoding.load(options)


def test_no_file_outside_is_read_for_a_sidecar(tmp_path):
    """The names in a sidecar are compared, never opened, by whoever loads the artifact."""
    path = tmp_path / "target"
    KINDS["target"][0](
        path, KINDS["target"][2], Provenance("a", {}, "", {"/dev/zero": "0" * 64}, 0.0)
    )
    assert verified(path)
