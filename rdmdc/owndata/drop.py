"""The cleaned data set: what was read without the flagged images, in the form it came in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rdmdc.datasets import listed_files
from rdmdc.datasets.image_list import ImageList
from rdmdc.datasets.split import DatasetError


def check_free(out: Path) -> None:
    """Raise DatasetError where the folder exists and holds something: nothing is overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out}: exists already; name a new folder, or empty this one")


def write(data: Path, listed: ImageList, flagged: np.ndarray, out: Path) -> int:
    """Write the images of the list except those at the ``flagged`` indices; returns how many.

    Images that the survey left out as broken are not written either.
    """
    check_free(out)
    kept = np.ones(len(listed.files), dtype=bool)
    kept[flagged] = False
    out.mkdir(parents=True, exist_ok=True)
    WRITERS[listed.form](data.absolute(), listed, kept, out)
    return int(kept.sum())


def _folder(data: Path, listed: ImageList, kept: np.ndarray, out: Path) -> None:
    for index in np.flatnonzero(kept).tolist():
        file = Path(listed.files[index])
        target = out / file.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def _tables(data: Path, listed: ImageList, kept: np.ndarray, out: Path) -> None:
    for file, rows in _by_file(listed, kept).items():
        path = out / (file.relative_to(data) if data.is_dir() else file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = listed_files.schema_of(listed.form, file)
        start = 0
        with _writer(listed.form, path, schema) as writer:
            for batch in listed_files.batches(listed.form, file, schema.names):
                low, high = np.searchsorted(rows, [start, start + len(batch)])
                chosen = batch.take(pa.array(rows[low:high] - start))
                if len(chosen):
                    writer.write_batch(pa.RecordBatch.from_arrays(chosen.columns, schema=schema))
                start += len(batch)
        for name in ("state.json", "dataset_info.json"):  # of a saved dataset
            if listed.form == "arrow" and (file.parent / name).is_file():
                shutil.copy2(file.parent / name, path.parent / name)
    if listed.form == "arrow" and (data / "dataset_dict.json").is_file():
        parts = sorted({path.parent.name for path in out.rglob("state.json")})
        (out / "dataset_dict.json").write_text(json.dumps({"splits": parts}))


def _writer(form: str, path: Path, schema: pa.Schema) -> pq.ParquetWriter | pa.RecordBatchWriter:
    if form == "parquet":
        return pq.ParquetWriter(path, schema)
    return pa.ipc.new_stream(str(path), schema)


def _npz(data: Path, listed: ImageList, kept: np.ndarray, out: Path) -> None:
    arrays = listed_files.arrays_of(data)
    start, cleaned = 0, dict(arrays)
    for name in listed.column.split(","):
        size = len(arrays[name])
        own = (listed.rows >= start) & (listed.rows < start + size) & kept
        rows = np.sort(listed.rows[own] - start)
        labels = {"images": "labels", "data": "labels", "x": "y"}.get(name) or name.replace(
            "images", "labels"
        ).replace("x_", "y_")
        cleaned |= {name: arrays[name][rows], labels: arrays[labels][rows]}
        start += size
    np.savez_compressed(out / data.name, allow_pickle=False, **cleaned)


def _by_file(listed: ImageList, kept: np.ndarray) -> dict[Path, np.ndarray]:
    """The rows to keep of every file, ascending."""
    rows: dict[Path, list[int]] = {}
    for index, file in enumerate(listed.files):
        own = rows.setdefault(Path(file), [])
        if kept[index]:
            own.append(int(listed.rows[index]))
    return {file: np.sort(np.asarray(own, np.int64)) for file, own in rows.items()}


WRITERS = {"folder": _folder, "parquet": _tables, "arrow": _tables, "npz": _npz}
