"""Scores and traces on disk: Parquet files, which people open elsewhere too.

Reading them happens in a child process with limits: Arrow's reader of Parquet trusts what a file
claims of itself. That holds even where a sidecar's sha256 fits, as whoever sends a file can send a
sidecar with it. One child reads all files of a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rdmdc.errors import ArtifactError
from rdmdc.storage import metadata as own
from rdmdc.storage.guarded import guarded, reading_now
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import check_regular, reading
from rdmdc.storage.writing import write

if TYPE_CHECKING:
    import pandas as pd

INTEGER = pa.int64()
FLOAT = pa.float64()
TEXT = pa.string()
TRUTH = pa.bool_()
CELLS = {INTEGER, FLOAT, TEXT, TRUTH, pa.large_string(), pa.null()}
"""The types of columns of traces."""
COLUMNS = {
    "scores": {
        "network": INTEGER,
        "accuracy": FLOAT,
        **dict.fromkeys(("target", "true_label", "adversarial_label", "predicted_label"), INTEGER),
        **dict.fromkeys(("adversarial_probability", "true_probability", "margin"), FLOAT),
        "architecture": TEXT,
        "condition": TEXT,
        "run": INTEGER,
        "method": TEXT,
    },
    "screening": {
        "index": INTEGER,
        "label": INTEGER,
        "score": FLOAT,
        "rank": INTEGER,
        "kept": TRUTH,
    },
}
"""The kinds of files whose columns are fixed, with these columns."""

MEGABYTES = 256  # of memory for reading
RATIO = 100  # more bytes of memory for each byte of the files
SECONDS = 60  # for reading, and one more for each MB of the files


def save_rows(path: Path, kind: str, rows: pd.DataFrame, provenance: Provenance) -> None:
    """Save a trace, scores or a screening as Parquet."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({own.KEY: own.text(kind, provenance)})

    def fill(file: IO[bytes]) -> None:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)

    write(path, provenance, fill)


def load_rows(path: Path, kind: str, expect: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The rows of a file of this kind. ``expect``: options that it must have been made with."""
    return load_all_rows([path], kind, expect)[0]


def load_all_rows(
    paths: Sequence[Path], kind: str, expect: Mapping[str, Any] | None = None
) -> list[pd.DataFrame]:
    """The rows of each of several files, read by one child. Raises ArtifactError."""
    if not paths:
        return []
    size = sum(path.stat().st_size for path in paths if path.is_file())
    content = guarded(
        decoded,
        [str(path) for path in paths],
        kind,
        expect or {},
        megabytes=MEGABYTES + (RATIO * size >> 20),
        seconds=SECONDS + size / 1e6,
        error=ArtifactError,
        place=paths[0],
        remedy="delete it and run snakemake again",
    )
    source, frames = pa.BufferReader(content), []
    for path in paths:
        with reading(path), pa.ipc.open_stream(source) as stream:
            frames.append(stream.read_all().to_pandas(ignore_metadata=True))
    return frames


def decoded(paths: Sequence[str], kind: str, expect: Mapping[str, Any]) -> bytes:
    """The files' rows, one after the other in Arrow's stream format: what the child does."""
    sink = pa.BufferOutputStream()
    for path in map(Path, paths):
        reading_now(path)
        with reading(path):
            table = _table(path, kind, expect)
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _table(path: Path, kind: str, expect: Mapping[str, Any]) -> pa.Table:
    """A file's rows without metadata, the text in them valid, its columns those of the kind."""
    check_regular(path)
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        own.checked(path, (schema.metadata or {}).get(own.KEY.encode()), kind, expect)
        if kind in COLUMNS:
            _check_columns(schema, COLUMNS[kind])
        elif not {field.type for field in schema} <= CELLS:
            raise ValueError(f"a column is none of {', '.join(sorted(map(str, CELLS)))}")
        table = file.read(use_threads=False)  # one page at a time
    table.validate(full=True)
    return table.replace_schema_metadata(None)


def _check_columns(schema: pa.Schema, wanted: Mapping[str, pa.DataType]) -> None:
    """ValueError unless they are exactly these; a text may have offsets of 32 or 64 bits."""
    if schema.names != list(wanted):
        raise ValueError(f"columns {', '.join(schema.names)}, not {', '.join(wanted)}")
    for field, kind in zip(schema, wanted.values(), strict=True):
        found = TEXT if field.type == pa.large_string() else field.type
        if found != kind:
            raise ValueError(f"column {field.name} is {found}, not {kind}")
