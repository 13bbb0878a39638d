"""The committed evidence: what is kept of runs, and whether it is still what was collected.

Each folder of docs/reproduction that holds a ``preset.yaml`` belongs to one preset:

- ``preset.yaml``: the preset as it ran;
- ``scores.parquet``: a row per condition, target, run, method, architecture and network;
- ``traces.parquet``: a row per condition, target, run, method, logged iteration and class; the
  target is null in conditions without poison, where one condensed set serves every target;
- ``screenings.parquet``, where the preset has screens: of each condition, target, screen and class
  the number of ``images`` and of those ``left_out``; a row per poison with its ``rank`` in the
  class (0 is the most suspicious) and whether it was ``kept`` (1 or 0), both null in the one row of
  a class without poisons;
- ``provenance.parquet``: a row per file of the run that was collected: its path below the run's
  folder, what its provenance sidecar said, and ``rows_sha256``, the digest of its rows here;
- ``tables.json``: each table's title, note, reference method and rows;
- everything else is made from these by scripts/reproduction.py.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rdmdc.errors import InputError
from rdmdc.storage import provenance
from rdmdc.storage.images import load_poisons
from rdmdc.storage.rows import load_all_rows

FILES = {
    "scores": ("scores", "run=*/*.scores.parquet"),
    "traces": ("trace", "run=*/*.trace.parquet"),
    "screenings": ("screening", "screens/*.parquet"),
}
"""The kind of artifact that each file of the evidence holds, and their paths in a case's folder."""
SAID = ("sha256", "bytes", "stage", "code", "commit", "seconds", "finished")
SAID_AS_JSON = ("versions", "options", "inputs")
TABLE = ("title", "note", "reference", "rows")


class EvidenceError(InputError):
    """The evidence, or a run to collect, is incomplete or changed; the message names the file."""


# --- from a run to the evidence ---------------------------------------------------------------


def collect(results: Path, preset: Path, evidence: Path) -> None:
    """Add a run's finished cells to the evidence; a cell that is there already is replaced.

    ``results`` is the folder of the preset's run, ``preset`` the preset's file. Raises
    EvidenceError where there is nothing to collect, ArtifactError where a file lacks its sidecar
    or differs from it.
    """
    folder, said, collected = evidence / results.name, {}, {}
    for name, (kind, pattern) in FILES.items():
        paths = sorted(results.glob(f"**/{pattern}"))
        if not paths and name == "scores":
            raise EvidenceError(f"{results}: holds no {pattern}; name the folder of a run")
        sidecars = [_sidecar(path) for path in paths]
        found = cells(folder, name) if (folder / f"{name}.parquet").exists() else {}
        loaded = load_all_rows(paths, kind)
        for path, sidecar, rows in zip(paths, sidecars, loaded, strict=True):
            artifact = path.relative_to(results).as_posix()
            rows = _of_poisons(path, rows, sidecar) if name == "screenings" else rows
            found[artifact] = _with_cell(artifact, rows)
            texts = {key: json.dumps(getattr(sidecar, key), sort_keys=True) for key in SAID_AS_JSON}
            said[artifact] = {"artifact": artifact, **{k: getattr(sidecar, k) for k in SAID}}
            said[artifact] |= {**texts, "rows_sha256": digest(found[artifact])}
        if found:
            collected[name] = pd.concat([found[artifact] for artifact in sorted(found)])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in collected.items():
        _write(rows, folder / f"{name}.parquet")
    _write_provenance(pd.DataFrame(list(said.values())), folder / "provenance.parquet")
    _write_tables(_tables_of(results), folder / "tables.json")
    shutil.copyfile(preset, folder / "preset.yaml")


def _sidecar(path: Path) -> provenance.Sidecar:
    provenance.verified(path)
    return provenance.read(provenance.sidecar_of(path))


def _of_poisons(path: Path, rows: pd.DataFrame, sidecar: provenance.Sidecar) -> pd.DataFrame:
    """What the evidence keeps of a screening: counts of each class, ranks of its poisons."""
    poisons, indices = path.parents[1] / "poisons.safetensors", []
    if poisons.is_file():
        if _sidecar(poisons).sha256 not in sidecar.inputs.values():
            raise EvidenceError(
                f"{path}: not a screening of {poisons.name}; run the workflow again"
            )
        indices = load_poisons(poisons).indices.tolist()
    of_class = rows.groupby("label")["kept"]
    counts = {"images": of_class.size(), "left_out": of_class.size() - of_class.sum()}
    ranks = rows.loc[rows["index"].isin(indices), ["label", "rank", "kept"]].astype("Int64")
    return pd.DataFrame(counts).reset_index().merge(ranks, on="label", how="left")


def _with_cell(artifact: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one file with the columns that its path stands for."""
    cell = cell_of(artifact)
    if "target" in rows:
        del cell["target"]  # a clean condition's scores are of all targets
    rows = _nullable(rows.assign(**cell))
    first = list(cell_of(artifact))
    return rows[[*first, *(name for name in rows if name not in first)]]


def cell_of(artifact: str) -> dict[str, Any]:
    """What ``<condition>[/target=<seed>]/run=<run>/<method>.<kind>.parquet`` or
    ``<condition>[/target=<seed>]/screens/<screen>.parquet`` names."""
    condition, *folders, file = artifact.split("/")
    values = dict(key.split("=") for key in folders if "=" in key)
    cell = {"condition": condition, "target": int(values.get("target", -1))}
    cell["target"] = pd.NA if cell["target"] < 0 else cell["target"]
    name = file.split(".")[0]
    return cell | (
        {"run": int(values["run"]), "method": name} if "run" in values else {"screen": name}
    )


def _nullable(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that may be null become integers that may be."""
    return rows.astype({name: "Int64" for name in ("target", "rank", "kept") if name in rows})


def _tables_of(results: Path) -> dict[str, Any]:
    """The tables of a run by name, as the sidecars of its table files describe them."""
    found = {}
    for folder in (results, results.parent):
        for path in sorted(folder.glob(f"*.csv{provenance.SUFFIX}")):
            options = provenance.read(path).options
            if options.get("preset") == results.name and set(TABLE) <= set(options):
                name = path.name.removesuffix(f".csv{provenance.SUFFIX}")
                found[name] = {key: options[key] for key in TABLE}
    return found


def _write(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    pq.write_table(table, path, compression="zstd", compression_level=19)


def _write_provenance(new: pd.DataFrame, path: Path) -> None:
    if path.exists():
        old = pd.read_parquet(path)
        new = pd.concat([old[~old["artifact"].isin(new["artifact"])], new])
    _write(new.sort_values("artifact"), path)


def _write_tables(new: Mapping[str, Any], path: Path) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    if not {**old, **new}:
        raise EvidenceError(f"{path}: the run has made no table; finish one of its tables first")
    path.write_text(json.dumps({**old, **new}, indent=1, ensure_ascii=False) + "\n")


# --- the evidence -----------------------------------------------------------------------------


def cells(folder: Path, name: str) -> dict[str, pd.DataFrame]:
    """The rows of each collected file by its path; EvidenceError where they changed."""
    path = folder / f"{name}.parquet"
    rows = _nullable(pd.read_parquet(path))
    said = pd.read_parquet(folder / "provenance.parquet").set_index("artifact")["rows_sha256"]
    key = ["condition", "screen"] if name == "screenings" else ["condition", "run", "method"]
    groups = dict(list(rows.groupby(key)))
    found, count = {}, 0
    for artifact, wanted in said.items():
        if not PurePosixPath(artifact).match(FILES[name][1]):
            continue
        cell = cell_of(artifact)
        mine = groups.get(tuple(cell[column] for column in key), rows.iloc[:0])
        if cell["target"] is not pd.NA:
            mine = mine[mine["target"] == cell["target"]]
        if digest(mine) != wanted:
            raise EvidenceError(
                f"{path}: the rows of {artifact} are not those that were collected; restore the"
                " file from the history, or collect the run again"
            )
        found[artifact], count = mine, count + len(mine)
    if count != len(rows):
        raise EvidenceError(
            f"{path}: {len(rows) - count} rows belong to no file that provenance.parquet lists;"
            " restore the file from the history, or collect again"
        )
    return found


def load(folder: Path, name: str) -> pd.DataFrame:
    """All rows of one of the files, whose digests have been compared."""
    return pd.concat(cells(folder, name).values(), ignore_index=True)


def digest(frame: pd.DataFrame) -> str:
    """The sha256 of a frame's column names and values, which no file format or version changes."""
    found = hashlib.sha256()
    for name in sorted(frame.columns):
        column = frame[name]
        if pd.api.types.is_float_dtype(column):
            values = column.to_numpy("<f8")
            content = np.where(np.isnan(values), np.nan, values).tobytes()
        elif pd.api.types.is_integer_dtype(column):
            content = column.astype("Int64").fillna(-1).to_numpy("<i8").tobytes()
        else:
            content = "\n".join(column).encode()
        found.update(f"{name}\n{len(frame)}\n".encode() + content)
    return found.hexdigest()
