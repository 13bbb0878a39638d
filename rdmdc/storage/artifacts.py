"""Records on disk: saved whole or not at all, checked when loaded, never a pickle.

Working data are uncompressed Arrow IPC (memory-mapped), what people exchange is Parquet, network
weights are safetensors. The metadata key ``rdmdc`` holds JSON: the artifact's kind and the options
that made it. An artifact's bytes depend on inputs, options and code only; what varies (seconds,
host, time, commit) goes to ``<artifact>.provenance.json`` with the sha256 of artifact and inputs.
"""

import glob
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rdmdc.errors import ArtifactError as ArtifactError
from rdmdc.models.running import ConvNet
from rdmdc.records import LabelledImages, Normalisation, PoisonSet, SyntheticSet, Target
from rdmdc.storage import claims
from rdmdc.storage.provenance import LARGEST, PARTIAL, reading, sidecar_of, text
from rdmdc.storage.provenance import Provenance as Provenance
from rdmdc.storage.provenance import sha256 as sha256
from rdmdc.storage.provenance import verified as verified

KEY = b"rdmdc"
INTEGER = pa.int64()
FLOAT = pa.float64()
TEXT = pa.string()
CELLS = {INTEGER, FLOAT, TEXT, pa.bool_(), pa.large_string(), pa.null()}
"""The types of columns of traces."""
SCORES = {
    "network": INTEGER,
    "accuracy": FLOAT,
    **dict.fromkeys(("target", "true_label", "adversarial_label", "predicted_label"), INTEGER),
    **dict.fromkeys(("adversarial_probability", "true_probability", "margin"), FLOAT),
    "condition": TEXT,
    "run": INTEGER,
    "instance": TEXT,
}


# --- writing ---------------------------------------------------------------------------------


def write(path: Path, provenance: Provenance, fill: Callable[[IO[bytes]], object]) -> None:
    """Write ``path`` by ``fill`` and its sidecar: both are whole before either gets its name.

    The sidecar gets its name first, so that no artifact is ever without one.
    """
    try:
        with _temporary(path, fill) as artifact:
            content = text(path, artifact.stat().st_size, sha256(artifact), provenance)
            with _temporary(sidecar_of(path), lambda file: file.write(content)) as sidecar:
                os.replace(sidecar, sidecar_of(path))
                os.replace(artifact, path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror or error};"
            " free some space or mend the folder's permissions, then run again"
        ) from error


@contextmanager
def _temporary(path: Path, fill: Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """A hidden file beside ``path``, filled and flushed to disk; gone at the end unless renamed.

    Those that jobs left which were killed here go first.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????{PARTIAL}"):
            left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
        ) as file:
            temporary = Path(file.name)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        yield temporary
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _metadata(kind: str, provenance: Provenance, **more: Any) -> dict[bytes, bytes]:
    content = {
        "kind": kind,
        "stage": provenance.stage,
        "options": provenance.options,
        **more,
    }
    return {KEY: json.dumps(content, sort_keys=True).encode()}


def _rows(values: Tensor) -> pa.Array:
    """(N, …) as N fixed-size lists."""
    flat = values.detach().cpu().contiguous().numpy().reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values[0].numel())


def _write_parquet(path: Path, provenance: Provenance, table: pa.Table) -> None:
    def fill(file: IO[bytes]) -> None:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)

    write(path, provenance, fill)


def save_images(path: Path, images: LabelledImages, provenance: Provenance) -> None:
    """Save a split as uncompressed Arrow IPC, to be memory-mapped."""
    metadata = _metadata(
        "images",
        provenance,
        shape=list(images.pixels.shape[1:]),
        class_names=images.class_names,
        mean=images.normalisation.mean,
        std=images.normalisation.std,
    )
    batch = pa.record_batch({"pixels": _rows(images.pixels), "label": images.labels.numpy()})
    batch = batch.replace_schema_metadata(metadata)

    def fill(file: IO[bytes]) -> None:
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2³¹ pixel values
        with pa.ipc.new_file(file, batch.schema, options=options) as writer:
            writer.write_batch(batch)

    write(path, provenance, fill)


def save_target(path: Path, target: Target, provenance: Provenance) -> None:
    """Save a target as a Parquet file of one row."""
    table = pa.table(
        {
            "seed": [target.seed],
            "index": [target.index],
            "true_label": [target.true_label],
            "adversarial_label": [target.adversarial_label],
            "pixels": _rows(target.pixels[None]),
        }
    )
    metadata = _metadata("target", provenance, shape=list(target.pixels.shape))
    _write_parquet(path, provenance, table.replace_schema_metadata(metadata))


def save_poisons(path: Path, poisons: PoisonSet, provenance: Provenance) -> None:
    """Save poisons as Parquet, a row each."""
    table = pa.table(
        {
            "index": poisons.indices.numpy(),
            "label": poisons.labels.numpy(),
            "pixels": _rows(poisons.pixels),
        }
    )
    metadata = _metadata("poisons", provenance, shape=list(poisons.pixels.shape[1:]))
    _write_parquet(path, provenance, table.replace_schema_metadata(metadata))


def save_synthetic(path: Path, synthetic: SyntheticSet, provenance: Provenance) -> None:
    """Save a condensed set as Parquet with its normalisation and class names."""
    metadata = _metadata(
        "synthetic set",
        provenance,
        shape=list(synthetic.inputs.shape[1:]),
        class_names=synthetic.class_names,
        mean=synthetic.normalisation.mean,
        std=synthetic.normalisation.std,
    )
    table = pa.table({"label": synthetic.labels.numpy(), "inputs": _rows(synthetic.inputs)})
    _write_parquet(path, provenance, table.replace_schema_metadata(metadata))


def save_rows(path: Path, kind: str, rows: pd.DataFrame, provenance: Provenance) -> None:
    """Save a trace or scores as Parquet."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    _write_parquet(path, provenance, table.replace_schema_metadata(_metadata(kind, provenance)))


def save_bytes(path: Path, content: bytes, provenance: Provenance) -> None:
    """Save a table or a figure."""
    write(path, provenance, lambda file: file.write(content))


def save_weights(path: Path, weights: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Save a network's weights as safetensors; ArtifactError where they are not finite."""
    _check_finite(path, weights)
    metadata = {k.decode(): v.decode() for k, v in _metadata("weights", provenance).items()}
    content = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        metadata,
    )
    write(path, provenance, lambda file: file.write(content))


# --- reading ---------------------------------------------------------------------------------


def _check_metadata(
    path: Path, raw: Mapping[bytes, bytes] | None, kind: str, expect: Mapping[str, Any]
) -> dict[str, Any]:
    """The artifact's own metadata; it must be of this kind, made with the expected options."""
    if not raw or KEY not in raw:
        raise ArtifactError(
            f"{path}: not an artifact of rdmdc (no metadata), expected {kind}; mend the path, or"
            " delete it and run snakemake again"
        )
    if len(raw[KEY]) > LARGEST:
        raise ValueError(f"metadata of more than {LARGEST} bytes")
    metadata: dict[str, Any] = json.loads(raw[KEY])
    if metadata["kind"] != kind:
        raise ArtifactError(
            f"{path}: holds {metadata['kind']}, expected {kind}; mend the path, or delete it and"
            " run snakemake again"
        )
    for key, wanted in expect.items():
        found = metadata["options"].get(key)
        if found != wanted:
            raise ArtifactError(
                f"{path}: made with {key} = {json.dumps(found)}, this job has"
                f" {json.dumps(wanted)}; delete it and run snakemake again"
            )
    return metadata


def _shape(metadata: Mapping[str, Any]) -> tuple[int, int, int]:
    """C, H, W of each image."""
    shape = metadata["shape"]
    if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f"shape {shape}, not three positive numbers C, H, W")
    channels, height, width = shape
    return channels, height, width


def _names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    names = metadata["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of names")
    return tuple(names)


def _normalisation(metadata: Mapping[str, Any]) -> Normalisation:
    return Normalisation(tuple(metadata["mean"]), tuple(metadata["std"]))


def _check_columns(schema: pa.Schema, wanted: Mapping[str, pa.DataType]) -> None:
    """Exactly these columns; what a list calls its elements differs between formats, and the
    length of a text's offsets between versions of pandas."""
    if schema.names != list(wanted):
        raise ValueError(f"columns {', '.join(schema.names)}, not {', '.join(wanted)}")
    for field, kind in zip(schema, wanted.values(), strict=True):
        found = field.type
        if pa.types.is_fixed_size_list(found):
            found = pa.list_(found.value_type, found.list_size)
        elif found == pa.large_string():
            found = TEXT
        if found != kind:
            raise ValueError(f"column {field.name} is {found}, not {kind}")


def _values(column: pa.ChunkedArray | pa.Array, shape: tuple[int, int, int]) -> Tensor:
    """The (N, C, H, W) tensor of a column of fixed-size lists, no copy where it is whole."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return _tensor(array.flatten().to_numpy().reshape(len(array), *shape))


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor over the same memory; a read-only map is never written to, so the warning is off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _read_parquet(
    path: Path,
    kind: str,
    expect: Mapping[str, Any],
    columns: Callable[[Mapping[str, Any]], Mapping[str, pa.DataType]] | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """The table and its metadata, from which ``columns`` tells what it must hold."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        metadata = _check_metadata(path, schema.metadata, kind, expect)
        if columns is not None:
            _check_columns(schema, columns(metadata))
        elif not {field.type for field in schema} <= CELLS:
            raise ValueError(f"a column is none of {', '.join(sorted(map(str, CELLS)))}")
        claims.check_parquet(path, claims.leaves(schema, schema.names), None)
        return file.read(use_threads=False), metadata  # one page at a time


def load_images(path: Path, expect: Mapping[str, Any] | None = None) -> LabelledImages:
    """A split, its pixels memory-mapped. ``expect``: options that it must have been made with."""
    with reading(path):
        source = pa.memory_map(str(path))
        file = pa.ipc.open_file(source)
        metadata = _check_metadata(path, file.schema.metadata, "images", expect or {})
        shape = _shape(metadata)
        _check_columns(file.schema, {"pixels": pa.list_(pa.uint8(), prod(shape)), "label": INTEGER})
        batch = _only_batch(source, file)
        return LabelledImages(
            _values(batch["pixels"], shape),
            _tensor(batch["label"].to_numpy()),
            _names(metadata),
            _normalisation(metadata),
        )


def _only_batch(source: pa.MemoryMappedFile, file: pa.ipc.RecordBatchFileReader) -> pa.RecordBatch:
    """The batch, mapped: the message after the schema's, as in Arrow's stream format."""
    if file.num_record_batches != 1:
        raise ValueError(f"{file.num_record_batches} record batches, not 1")
    source.seek(8)  # after the magic bytes
    schema = pa.ipc.read_schema(source)
    if not schema.equals(file.schema, check_metadata=True):
        raise ValueError("two schemas that differ")
    message = pa.ipc.read_message(source)
    claims.check_message(message)
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate()  # what a damaged header says of lengths would end the process
    return batch


def load_target(
    path: Path, expect: Mapping[str, Any] | None = None, split: LabelledImages | None = None
) -> Target:
    """A target; ArtifactError where the file is not one, or does not fit the ``split``."""

    def columns(metadata: Mapping[str, Any]) -> dict[str, pa.DataType]:
        numbers = ("seed", "index", "true_label", "adversarial_label")
        pixels = pa.list_(pa.uint8(), prod(_shape(metadata)))
        return {**dict.fromkeys(numbers, INTEGER), "pixels": pixels}

    with reading(path):
        table, metadata = _read_parquet(path, "target", expect or {}, columns)
        if len(table) != 1:
            raise ValueError(f"{len(table)} targets, not 1")
        row = table.drop_columns("pixels").to_pylist()[0]
        target = Target(pixels=_values(table["pixels"], _shape(metadata))[0], **row)
        if split is not None:
            target.check(split)
        return target


def load_poisons(
    path: Path, expect: Mapping[str, Any] | None = None, train: LabelledImages | None = None
) -> PoisonSet:
    """A poison set; ArtifactError where the file is not one, or does not fit ``train``."""

    def columns(metadata: Mapping[str, Any]) -> dict[str, pa.DataType]:
        pixels = pa.list_(pa.uint8(), prod(_shape(metadata)))
        return {"index": INTEGER, "label": INTEGER, "pixels": pixels}

    with reading(path):
        table, metadata = _read_parquet(path, "poisons", expect or {}, columns)
        poisons = PoisonSet(
            _tensor(table["index"].to_numpy()),
            _tensor(table["label"].to_numpy()),
            _values(table["pixels"], _shape(metadata)),
        )
        if train is not None:
            poisons.check(train)
        return poisons


def load_synthetic(
    path: Path, expect: Mapping[str, Any] | None = None, split: LabelledImages | None = None
) -> SyntheticSet:
    """A condensed set; ArtifactError where the file is not one, or does not fit the ``split``."""

    def columns(metadata: Mapping[str, Any]) -> dict[str, pa.DataType]:
        return {"label": INTEGER, "inputs": pa.list_(pa.float32(), prod(_shape(metadata)))}

    with reading(path):
        table, metadata = _read_parquet(path, "synthetic set", expect or {}, columns)
        synthetic = SyntheticSet(
            _values(table["inputs"], _shape(metadata)),
            _tensor(table["label"].to_numpy()),
            _names(metadata),
            _normalisation(metadata),
        )
        if split is not None:
            synthetic.check(split)
        return synthetic


def load_rows(path: Path, kind: str, expect: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A trace or scores, whose columns are those of SCORES."""
    columns = (lambda _: SCORES) if kind == "scores" else None
    with reading(path):
        table, _ = _read_parquet(path, kind, expect or {}, columns)
        return table.to_pandas(ignore_metadata=True)


def load_weights(
    path: Path, expect: Mapping[str, Any] | None = None, network: ConvNet | None = None
) -> dict[str, Tensor]:
    """Weights, finite float32; ArtifactError where the file has others, or not the network's."""
    with reading(path), safetensors.safe_open(path, "pt") as file:
        raw = {k.encode(): v.encode() for k, v in (file.metadata() or {}).items()}
        _check_metadata(path, raw, "weights", expect or {})
        weights = {name: file.get_tensor(name) for name in file.offset_keys()}
        for name, value in weights.items():
            if value.dtype != torch.float32:
                raise ValueError(f"{name} is {value.dtype}, not float32")
        if network is not None:
            network.check(weights)
    _check_finite(path, weights)
    return weights


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(
                f"{path}: {name} holds NaN or infinity; lower pretrain.learning_rate and run"
                " snakemake again"
            )
