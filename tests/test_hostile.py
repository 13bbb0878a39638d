"""Files that are well formed but lie: refused at once, with little memory, by every reader."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_artifacts import KINDS, NAMES, NORMALISATION, OPTIONS, inputs
from test_datasets import encoded, files, image, table, tree  # noqa: F401

from rdmdc.datasets import decoding as datasets
from rdmdc.sources import files as sources
from rdmdc.storage import artifacts, claims, thrift
from rdmdc.storage.artifacts import ArtifactError, Provenance
from rdmdc.storage.claims import ClaimError
from rdmdc.records import Normalisation, RecordError, SyntheticSet, Target
from rdmdc.sources.files import DatasetError

BEGUN = Provenance("a stage", OPTIONS, "c0de", {}, 0.0)


@pytest.fixture(autouse=True)
def at_once_and_with_little_memory():
    """A lie of gigabytes shows as such."""
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 600 << 10
    assert time.monotonic() - began < 20


def rewritten(path, made_as, /, **changes):
    """A Parquet or Arrow artifact with other metadata."""
    KINDS[made_as][0](path, KINDS[made_as][2], BEGUN)
    read = pa.ipc.open_file(path).read_all() if made_as == "images" else pq.read_table(path)
    metadata = {**json.loads(read.schema.metadata[b"rdmdc"]), **changes}
    read = read.replace_schema_metadata({b"rdmdc": json.dumps(metadata)})
    path.unlink()
    if made_as == "images":
        with pa.ipc.new_file(path, read.schema) as file:
            file.write_table(read)
    else:
        pq.write_table(read, path)
    return path


# --- metadata --------------------------------------------------------------------------------

SHAPED = ["images", "target", "poisons", "synthetic set"]
NAMED = ["images", "synthetic set"]


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize(
    "shape",
    [None, 24, "324", [], [24], [3, 2, -1], [3, 2, 5], [3, 2, 4.0], [-3, -2, 4], [True, 6, 4],
     [0, 2, 4], [10**30, 1, 1], [[3], 2, 4], [6, 4, 1, 1]],
)  # fmt: skip
def test_shapes_that_do_not_fit(tmp_path, kind, shape):
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        KINDS[kind][1](rewritten(tmp_path / "x", kind, shape=shape))


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
        artifacts.load_rows(tmp_path / "x", "scores")


def test_metadata_that_are_too_large(tmp_path):
    """In an Arrow file, as a Parquet file's footer has a limit of its own."""
    with pytest.raises(ArtifactError, match="metadata of more than 4194304 bytes"):
        artifacts.load_images(rewritten(tmp_path / "x", "images", more="a" * (5 << 20)))


def test_what_a_file_says_cannot_flood_or_steer_a_terminal(tmp_path, capsys):
    from rdmdc.__main__ import main

    for kind in ("\x1b[2J", "a" * 10**6, "\udc80"):
        path = rewritten(tmp_path / "x", "target", kind=kind)
        main(["targets-figure", "--options", "{}", "--test", str(path), "--targets", str(path),
              "--png", "a", "--svg", "b"])  # fmt: skip
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


def lying(path, kind, columns, **more):
    """A Parquet artifact with other columns."""
    written = {"kind": kind, "options": OPTIONS, "shape": [3, 2, 4], **more}
    content = pa.table(columns).replace_schema_metadata({b"rdmdc": json.dumps(written)})
    pq.write_table(content, path, compression="zstd")
    return path


def test_millions_of_rows_in_a_few_bytes(tmp_path):
    path = lying(tmp_path / "x", "trace", {"class": np.zeros(9_000_000, np.int64)})
    assert path.stat().st_size < 200_000
    with pytest.raises(ArtifactError, match="9000000 rows of 72000000 bytes in a file of"):
        artifacts.load_rows(path, "trace")


def test_a_page_that_decompresses_to_far_more(tmp_path):
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(20_000_000, np.uint8)), 20_000_000)
    columns = {n: [1] for n in ("seed", "index", "true_label", "adversarial_label")}
    path = lying(tmp_path / "x", "target", {**columns, "pixels": flat}, shape=[1, 1, 20_000_000])
    assert path.stat().st_size < 100_000
    with pytest.raises(ArtifactError, match=r"of \d+ bytes in a file of \d+"):
        artifacts.load_target(path)


def test_a_long_text_in_every_row(tmp_path):
    texts = pa.array(["a" * 500_000]).take(pa.array(np.zeros(200, np.int64)))
    path = lying(tmp_path / "x", "trace", {"condition": texts})
    assert path.stat().st_size < 10_000
    with pytest.raises(ArtifactError, match=r"a column of \d+ bytes in a file of"):
        artifacts.load_rows(path, "trace")


@pytest.mark.parametrize(
    "column",
    [[{"a": 1}], [[1, 2]], [b"bytes"], pa.array([1], pa.int8()), pa.array([0], pa.timestamp("s"))],
)
def test_columns_of_a_type_that_rows_never_have(tmp_path, column):
    with pytest.raises(ArtifactError, match=r"a column is none of .*int64"):
        artifacts.load_rows(lying(tmp_path / "x", "trace", {"a": column}), "trace")


def test_two_targets_and_none(tmp_path):
    path, record = tmp_path / "x", KINDS["target"]
    record[0](path, record[2], BEGUN)
    one = pq.read_table(path)
    for rows in (pa.concat_tables([one, one]), one.slice(0, 0)):
        pq.write_table(rows, path)
        with pytest.raises(ArtifactError, match=r"\(\d targets, not 1\)"):
            artifacts.load_target(path)


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("num_rows", 10**12, "1000000000000 rows, but 8 in its row groups"),
        ("rows of a group", 10**12, r"1000000000000 rows of \d+ bytes in a file of"),
        ("rows of a group", 7, "8 values in 7 rows, not 1 in each"),
        ("rows of a group", -1, "a row group of -1 rows"),
        ("start", 10**12, "pages at"),
        ("start", -5, "pages at"),
        ("length", 10**12, "pages at"),
        ("length", 3, "does not end|after|ends at"),
    ],
)
def test_a_footer_that_lies(tmp_path, monkeypatch, field, value, fault):
    """Its fields as the reader finds them, one of them changed."""
    path = tmp_path / "x"
    pq.write_table(pa.table({"a": np.arange(8)}), path)
    honest = thrift.structure

    def structure(content, at, depth=0):
        end, said = honest(content, at, depth)
        if (4, thrift.LIST) in said:
            (group,) = said[4, thrift.LIST]
            (chunk,) = group[1, thrift.LIST]
            if field == "num_rows":
                said[3, thrift.LONG] = value
            elif field == "rows of a group":
                group[3, thrift.LONG] = said[3, thrift.LONG] = value
            else:
                where = chunk[3, thrift.STRUCT]
                where.pop((11, thrift.LONG), None)
                where[9 if field == "start" else 7, thrift.LONG] = value
        return end, said

    leaves = claims.leaves(pa.schema({"a": pa.int64()}), ["a"])
    claims.check_parquet(path, leaves, None)
    monkeypatch.setattr(claims, "structure", structure)
    with pytest.raises(ClaimError, match=fault):
        claims.check_parquet(path, leaves, None)


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        (2, 2**31 - 1, r"pages of \d+ bytes in a file"),
        (2, -1, "a page that ends at"),
        (3, -1, "a page that ends at"),
        (3, 10**9, "a page that ends at"),
        (5, 2**31 - 1, "2147483647 values in 8 rows"),
        (5, 7, "7 values in 8 rows"),
        (7, 2**31 - 1, r"a dictionary of \d+ bytes in a file"),
    ],
)
def test_a_page_header_that_lies(tmp_path, monkeypatch, field, value, fault):
    path = tmp_path / "x"
    pq.write_table(pa.table({"a": np.arange(8)}), path, use_dictionary=field == 7)
    honest = thrift.structure

    def structure(content, at, depth=0):
        end, said = honest(content, at, depth)
        if (2, thrift.INT) in said:
            if field in (5, 7):
                said.get((field, thrift.STRUCT), {})[1, thrift.INT] = value
            else:
                said[field, thrift.INT] = value
        return end, said

    monkeypatch.setattr(claims, "structure", structure)
    with pytest.raises(ClaimError, match=fault):
        claims.check_parquet(path, claims.leaves(pa.schema({"a": pa.int64()}), ["a"]), None)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_honest_files_of_other_writers_pass(tmp_path, codec, version):
    """Pages of both versions, dictionaries, nulls, nested columns beside those that are read."""
    rows = 5000
    content = pa.table(
        {
            "image": pa.array(
                [{"bytes": b"%d" % (i % 7), "path": None} for i in range(rows)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": np.arange(rows) % 10,
            "boxes": [[[i]] * (i % 3) for i in range(rows)],
            "tags": pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        }
    )
    path = tmp_path / "x"
    options = {"data_page_version": version, "row_group_size": 700, "data_page_size": 2000}
    pq.write_table(content, path, compression=codec, **options)
    claims.check_parquet(path, claims.leaves(content.schema, ["image", "label"]), 64)


def test_a_damaged_footer_that_ends_arrow_does_not_end_us(tmp_path):
    """Arrow's own access to the footer of this file ends the process: its size statistics of a
    column do not fit the schema, in which the column has become optional."""
    path = tmp_path / "x"
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    pq.write_table(pa.table({"a": [1]}, schema=schema), path)
    content = path.read_bytes()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    for at in range(footer, len(content)):
        for mask in (1, 2, 4, 128):
            path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
            with pytest.raises(ArtifactError):
                artifacts.load_rows(path, "scores")


# --- Arrow IPC and safetensors ---------------------------------------------------------------


def ipc(path, columns, batches=1, **options):
    metadata = {
        "kind": "images",
        "options": OPTIONS,
        "shape": [3, 2, 4],
        "class_names": list(NAMES),
    }
    metadata |= {"mean": NORMALISATION.mean, "std": NORMALISATION.std}
    batch = pa.record_batch(columns)
    batch = batch.replace_schema_metadata({b"rdmdc": json.dumps(metadata)})
    with pa.ipc.new_file(path, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
        for _ in range(batches):
            file.write_batch(batch)
    return path


def pixels(count, kind=np.uint8, side=24):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(count * side, kind)), side)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_batches_are_refused_before_they_grow(tmp_path, compression):
    columns = {"pixels": pixels(3_000_000), "label": np.zeros(3_000_000, np.int64)}
    path = ipc(tmp_path / "x", columns, compression=compression)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ArtifactError, match="a record batch that is compressed"):
        artifacts.load_images(path)


LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("columns", "batches", "fault"),
    [
        ({"pixels": pixels(3), "label": LABELS}, 2, "2 record batches, not 1"),
        ({"pixels": pixels(3), "label": LABELS}, 0, "0 record batches, not 1"),
        ({"pixels": pixels(3, np.int8), "label": LABELS}, 1, "column pixels is .*int8"),
        ({"pixels": pixels(3, side=23), "label": LABELS}, 1, r"column pixels is .*\[23\]"),
        ({"pixels": pixels(3), "label": LABELS.astype(np.int32)}, 1, "column label is int32"),
        ({"pixels": pixels(3), "label": pa.nulls(3)}, 1, "column label is null"),
        ({"pixels": pixels(3), "label": pa.array([0, None, 2])}, 1, ""),
        ({"label": LABELS, "pixels": pixels(3)}, 1, "columns label, pixels, not pixels, label"),
        ({"pixels": pixels(3), "label": LABELS, "more": LABELS}, 1, "columns pixels, label, more"),
    ],
)
def test_batches_that_do_not_fit(tmp_path, columns, batches, fault):
    with pytest.raises(ArtifactError, match=f"x: damaged.*{fault}"):
        artifacts.load_images(ipc(tmp_path / "x", columns, batches))


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
        artifacts.load_weights(tmp_path / "x")


@pytest.mark.parametrize("length", [2**63, 10**12, 100_000_001])
def test_headers_of_weights_that_are_too_long(tmp_path, length):
    with open(tmp_path / "x", "wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(200_000_000)  # takes no room on the disk
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        artifacts.load_weights(tmp_path / "x")


def test_weights_are_loaded_without_running_code(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "x")
    with pytest.raises(ArtifactError, match="x: damaged or of another kind"):
        artifacts.load_weights(tmp_path / "x")
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "x")


# --- data sets -------------------------------------------------------------------------------


def test_millions_of_labels_in_a_few_bytes(files):  # noqa: F811
    one = pa.array([{"bytes": b"a", "path": None}])
    rows = 12_000_000
    content = pa.table({"image": pa.nulls(rows, one.type), "label": np.zeros(rows, np.int64)})
    with pytest.raises(
        DatasetError, match=r"train.parquet: .*12000000 rows of \d+ bytes in a file"
    ):
        datasets.load(files(train=content))


def test_one_large_image_in_every_row(files):  # noqa: F811
    options, large = files(), table([bytes(4 << 20)] * 40, [0] * 40)
    pq.write_table(large, options["train"], dictionary_pagesize_limit=8 << 20, compression="zstd")
    assert Path(options["train"]).stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"train.parquet: .*a column of \d+ bytes in a file"):
        datasets.load(options)


def test_more_pixels_than_memory(files, monkeypatch):  # noqa: F811
    monkeypatch.setattr(datasets.os, "sysconf", lambda name: 10)
    with pytest.raises(
        DatasetError, match=r"864 bytes of pixels, this machine has 100 .*per_class"
    ):
        datasets.load(files())


@pytest.mark.parametrize("names", ["[" * 100_000, '{"a": ' * 100_000])
@pytest.mark.parametrize("key", ["class_names", "huggingface"])
def test_metadata_nested_too_deep(files, names, key):  # noqa: F811
    content = table([encoded(image(i)) for i in range(3)], [0, 1, 2], {key: names})
    with pytest.raises(DatasetError, match="do not name the classes"):
        datasets.load(files(train=content))


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
        datasets.load(files(train=content))


def test_a_text_chunk_that_decompresses_to_far_more(files):  # noqa: F811
    buffer = io.BytesIO()
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * (80 << 20), zip=True)
    Image.new("RGB", (6, 6)).save(buffer, "PNG", pnginfo=info)
    content = table([buffer.getvalue()] + [encoded(image(i)) for i in range(2)], [0, 1, 2])
    with pytest.raises(DatasetError, match="row 0: undecodable image"):
        datasets.load(files(train=content))


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
            file.truncate(sources.LARGEST + 1)
    with pytest.raises(
        DatasetError, match=r"cat/0.png: (not a regular file; remove|larger than 67)"
    ):
        datasets.load(options)


def test_no_file_outside_is_read_for_a_sidecar(tmp_path):
    """The names in a sidecar are compared, never opened, by whoever loads the artifact."""
    path = tmp_path / "target"
    KINDS["target"][0](
        path, KINDS["target"][2], Provenance("a", {}, "", {"/dev/zero": "0" * 64}, 0.0)
    )
    assert artifacts.verified(path)


def test_it_all_fits_into_little_memory(tmp_path):
    """A new process that may allocate 300 MB beyond its imports refuses these as well."""
    lying(tmp_path / "rows", "trace", {"class": np.zeros(9_000_000, np.int64)})
    ipc(tmp_path / "ipc", {"pixels": pixels(3_000_000), "label": np.zeros(3_000_000, np.int64)},
        compression="zstd")  # fmt: skip
    code = f"""
import resource
from pathlib import Path
from rdmdc.storage import artifacts
used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + (300 << 20),) * 2)
for load in (lambda: artifacts.load_rows(Path({str(tmp_path / "rows")!r}), "trace"),
             lambda: artifacts.load_images(Path({str(tmp_path / "ipc")!r}))):
    try:
        load()
    except artifacts.ArtifactError as error:
        assert "memory" not in str(error), error
        print("refused")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "refused\n" * 2, run.stderr
