"""Records on disk: saved whole or not at all, checked when loaded, never a pickle.

Working data are uncompressed Arrow IPC (memory-mapped), what people exchange is Parquet, network
weights are safetensors. The metadata key ``rdmdc`` holds JSON: the artifact's kind and the options
that made it. An artifact's bytes depend on inputs, options and code only; what varies (seconds,
host, time, commit) goes to ``<artifact>.provenance.json`` with the sha256 of artifact and inputs.
"""

import hashlib
import json
import os
import platform
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
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

from rdmdc.errors import InputError
from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    RecordError,
    SyntheticSet,
    Target,
)

KEY = b"rdmdc"


class ArtifactError(InputError):
    """An artifact cannot be read, written or used; the message names file, fault and remedy."""


@dataclass(frozen=True)
class Provenance:
    """How an artifact is made: stage and options, digest of the code, sha256 of each input."""

    stage: str
    options: Mapping[str, Any]
    code: str
    inputs: Mapping[str, str]
    started: float

    @classmethod
    def begin(
        cls, stage: str, options: Mapping[str, Any], code: str, inputs: Iterable[Path]
    ) -> "Provenance":
        """Note the start of a job: its clock begins, its inputs are hashed."""
        return cls(stage, options, code, {str(p): verified(p) for p in inputs}, time.time())


def sha256(path: Path) -> str:
    """The file's sha256 as hex digits; ArtifactError where there is no such file."""
    with _reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path) -> str:
    """The file's sha256; ArtifactError where the file's provenance, if it has one, has another."""
    found, provenance = sha256(path), _provenance_of(path)
    if provenance.is_file():
        with _reading(provenance):
            wanted = json.loads(provenance.read_bytes())["sha256"]
        if found != wanted:
            raise ArtifactError(
                f"{path}: damaged or changed, its sha256 is not the one in {provenance.name};"
                " delete it and run snakemake again"
            )
    return found


def _provenance_of(path: Path) -> Path:
    return path.with_name(path.name + ".provenance.json")


# --- writing ---------------------------------------------------------------------------------


def write(path: Path, provenance: Provenance, fill: Callable[[IO[bytes]], object]) -> None:
    """Write ``path`` atomically by ``fill``, then its provenance; nothing half-written is left."""
    digest = _replace(path, fill)
    content = _sidecar(path, provenance, digest)
    _replace(_provenance_of(path), lambda file: file.write(content))


def _replace(path: Path, fill: Callable[[IO[bytes]], object]) -> str:
    """Fill a temporary file in the same folder, flush it to disk, rename it; its sha256."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        return digest
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror or error};"
            " free some space or mend the folder's permissions, then run again"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sidecar(path: Path, provenance: Provenance, digest: str) -> bytes:
    content = {
        "artifact": path.name,
        "sha256": digest,
        "stage": provenance.stage,
        "options": provenance.options,
        "code": provenance.code,
        "inputs": provenance.inputs,
        "seconds": round(time.time() - provenance.started, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("rdmdc", "torch", "pyarrow")},
        },
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _commit() -> str | None:
    """The commit of the source tree, None outside a git checkout."""
    folder = Path(__file__).parent
    with suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return run.stdout.strip()
    return None


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
        with pa.ipc.new_file(file, batch.schema) as writer:
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


@contextmanager
def _reading(path: Path) -> Any:
    """Turn every fault of a reader into an ArtifactError that names the file and a remedy."""
    remedy = "delete it and run snakemake again"
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; run snakemake to make it") from error
    except RecordError as error:
        raise ArtifactError(f"{path}: {error}; {remedy}") from error
    except ArtifactError:
        raise
    except Exception as error:  # readers of damaged files raise nearly anything
        raise ArtifactError(f"{path}: damaged or of another kind ({error}); {remedy}") from error


def _check_metadata(
    path: Path, raw: Mapping[bytes, bytes] | None, kind: str, expect: Mapping[str, Any]
) -> dict[str, Any]:
    """The artifact's own metadata; it must be of this kind, made with the expected options."""
    if not raw or KEY not in raw:
        raise ArtifactError(
            f"{path}: not an artifact of rdmdc (no metadata), expected {kind}; mend the path, or"
            " delete it and run snakemake again"
        )
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


def _values(column: pa.ChunkedArray | pa.Array, shape: Iterable[int], dtype: type) -> np.ndarray:
    """The (N, *shape) array of a column of fixed-size lists, without a copy where it is whole."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy()
    if flat.dtype != dtype:
        raise ValueError(f"values are {flat.dtype}, not {np.dtype(dtype)}")
    return flat.reshape(len(array), *shape)


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor over the same memory; a read-only map is never written to, so the warning is off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _normalisation(metadata: Mapping[str, Any]) -> Normalisation:
    return Normalisation(tuple(metadata["mean"]), tuple(metadata["std"]))


def _read_parquet(
    path: Path, kind: str, expect: Mapping[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        metadata = _check_metadata(path, file.schema_arrow.metadata, kind, expect)
        return file.read(), metadata


def load_images(path: Path, expect: Mapping[str, Any] | None = None) -> LabelledImages:
    """A split, its pixels memory-mapped. ``expect``: options that it must have been made with."""
    with _reading(path):
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = _check_metadata(path, file.schema.metadata, "images", expect or {})
        batch = file.get_batch(0)
        batch.validate()  # what a damaged header says of lengths would end the process
        return LabelledImages(
            _tensor(_values(batch["pixels"], metadata["shape"], np.uint8)),
            _tensor(batch["label"].to_numpy()),
            tuple(metadata["class_names"]),
            _normalisation(metadata),
        )


def load_target(path: Path, expect: Mapping[str, Any] | None = None) -> Target:
    """A target; raises ArtifactError where the file is not one."""
    with _reading(path):
        table, metadata = _read_parquet(path, "target", expect or {})
        row = table.select(["seed", "index", "true_label", "adversarial_label"]).to_pylist()[0]
        return Target(
            pixels=_tensor(_values(table["pixels"], metadata["shape"], np.uint8)[0]),
            **row,
        )


def load_poisons(path: Path, expect: Mapping[str, Any] | None = None) -> PoisonSet:
    """A poison set; raises ArtifactError where the file is not one."""
    with _reading(path):
        table, metadata = _read_parquet(path, "poisons", expect or {})
        return PoisonSet(
            _tensor(table["index"].to_numpy()),
            _tensor(table["label"].to_numpy()),
            _tensor(_values(table["pixels"], metadata["shape"], np.uint8)),
        )


def load_synthetic(path: Path, expect: Mapping[str, Any] | None = None) -> SyntheticSet:
    """A condensed set, finite and balanced; raises ArtifactError where the file is not one."""
    with _reading(path):
        table, metadata = _read_parquet(path, "synthetic set", expect or {})
        return SyntheticSet(
            _tensor(_values(table["inputs"], metadata["shape"], np.float32)),
            _tensor(table["label"].to_numpy()),
            tuple(metadata["class_names"]),
            _normalisation(metadata),
        )


def load_rows(path: Path, kind: str, expect: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A trace or scores."""
    with _reading(path):
        table, _ = _read_parquet(path, kind, expect or {})
        return table.to_pandas()


def load_weights(path: Path, expect: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """A network's weights, finite; raises ArtifactError where the file is not that."""
    with _reading(path), safetensors.safe_open(path, "pt") as file:
        raw = {k.encode(): v.encode() for k, v in (file.metadata() or {}).items()}
        _check_metadata(path, raw, "weights", expect or {})
        weights = {name: file.get_tensor(name) for name in file.offset_keys()}
    _check_finite(path, weights)
    return weights


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(
                f"{path}: {name} holds NaN or infinity; lower pretrain.learning_rate and run"
                " snakemake again"
            )
