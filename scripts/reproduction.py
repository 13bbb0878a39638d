"""The committed evidence: scores and traces of runs, and the tables and figures made from them.

    python scripts/reproduction.py collect results/cifar10_cpu config/cifar10-cpu.yaml
    python scripts/reproduction.py build

``collect`` adds the finished cells of a run to the evidence. ``build`` makes the tables and figures
again from the evidence alone. Each folder of docs/reproduction that holds a ``preset.yaml`` belongs
to one preset:

- ``preset.yaml``: the preset as it ran;
- ``scores.parquet``: a row per condition, target, run, method (``instance``) and network;
- ``traces.parquet``: a row per condition, target, run, method, logged iteration and class; the
  target is null in conditions without poison, where one condensed set serves every target;
- ``provenance.parquet``: a row per file of the run that was collected: its path below the run's
  folder, what its provenance sidecar said, and ``rows_sha256``, the digest of its rows;
- ``tables.json``: each table's title, note, reference method and rows;
- ``filter.csv``, ``table*.csv``, ``table*.md``, ``table*.png``: what ``build`` made.

Where several target seeds drew the same image, ``table*_distinct`` keeps only the first of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rdmdc.errors import InputError
from rdmdc.reporting import figures, tables

EVIDENCE = Path(__file__).parents[1] / "docs" / "reproduction"
SIDECAR = ".provenance.json"
KINDS = {"scores": ".scores.parquet", "traces": ".trace.parquet"}
CELL = ["condition", "target", "run", "instance"]
SAID = ("sha256", "bytes", "stage", "code", "commit", "seconds", "finished")
SAID_AS_JSON = ("versions", "options", "inputs")
TABLE = ("title", "note", "reference", "rows")
CAUGHT = ["recall", "deviation_before", "deviation_after", "shift_before", "shift_after"]
DPI = 150


class EvidenceError(InputError):
    """The evidence, or a run to collect, is incomplete or changed; the message names the file."""


# --- from a run to the evidence ---------------------------------------------------------------


def collect(results: Path, preset: Path, evidence: Path) -> None:
    """Add a run's finished cells to the evidence; a cell that is there already is replaced.

    ``results`` is the folder of the preset's run, ``preset`` the preset's file. Raises
    EvidenceError where there is nothing to collect, or a file lacks its sidecar or differs from it.
    """
    folder = evidence / results.name
    folder.mkdir(parents=True, exist_ok=True)
    said = {}
    for kind, suffix in KINDS.items():
        found = sorted(results.glob(f"**/run=*/*{suffix}"))
        if not found:
            raise EvidenceError(f"{results}: holds no run=…/*{suffix}; name the folder of a run")
        old = _cells(folder, kind) if (folder / "provenance.parquet").exists() else {}
        new = {}
        for path in found:
            artifact = path.relative_to(results).as_posix()
            said[artifact] = _said(path, artifact)
            new[artifact] = _collected(path, artifact)
            said[artifact]["rows_sha256"] = digest(new[artifact])
        merged = {**old, **new}
        _write(pd.concat([merged[name] for name in sorted(merged)]), folder / f"{kind}.parquet")
    _write_provenance(pd.DataFrame(list(said.values())), folder / "provenance.parquet")
    _write_tables(_tables_of(results), folder / "tables.json")
    shutil.copyfile(preset, folder / "preset.yaml")


def _collected(path: Path, artifact: str) -> pd.DataFrame:
    """The rows of one file of a run, with the columns that its path stands for."""
    frame = pq.ParquetFile(path).read().to_pandas(ignore_metadata=True)
    cell = cell_of(artifact)
    if "target" in frame:
        del cell["target"]  # a clean condition's scores are of all targets
    frame = frame.assign(**cell).astype({"target": "Int64"})
    return frame[[*CELL, *(name for name in frame if name not in CELL)]]


def cell_of(artifact: str) -> dict[str, Any]:
    """What ``<condition>[/target=<seed>]/run=<run>/<method>.<kind>.parquet`` names."""
    condition, *keys, file = artifact.split("/")
    values = dict(key.split("=") for key in keys)
    return {
        "condition": condition,
        "target": int(values["target"]) if "target" in values else pd.NA,
        "run": int(values["run"]),
        "instance": file.split(".")[0],
    }


def _said(path: Path, artifact: str) -> dict[str, Any]:
    """What a file's sidecar says of it, after comparing the file with it."""
    beside = path.with_name(path.name + SIDECAR)
    if not beside.is_file():
        raise EvidenceError(f"{path}: has no {beside.name}; run the workflow again to make both")
    sidecar = json.loads(beside.read_text())
    if hashlib.sha256(path.read_bytes()).hexdigest() != sidecar["sha256"]:
        raise EvidenceError(
            f"{path}: damaged or changed, its sha256 is not the one in {beside.name};"
            " delete it and run the workflow again"
        )
    texts = {name: json.dumps(sidecar[name], sort_keys=True) for name in SAID_AS_JSON}
    return {"artifact": artifact, **{name: sidecar[name] for name in SAID}, **texts}


def _tables_of(results: Path) -> dict[str, Any]:
    """The tables of a run by name, as the sidecars of its table files describe them."""
    beside = [*results.glob(f"*.csv{SIDECAR}"), *results.parent.glob(f"*.csv{SIDECAR}")]
    found = {}
    for path in sorted(beside):
        options = json.loads(path.read_text())["options"]
        if options.get("preset") == results.name and set(TABLE) <= set(options):
            name = path.name.removesuffix(f".csv{SIDECAR}")
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


def _cells(folder: Path, kind: str) -> dict[str, pd.DataFrame]:
    """The rows of each collected file of a kind by its path; EvidenceError where they changed."""
    rows = pd.read_parquet(folder / f"{kind}.parquet").astype({"target": "Int64"})
    said = pd.read_parquet(folder / "provenance.parquet").set_index("artifact")["rows_sha256"]
    groups = dict(list(rows.groupby(["condition", "run", "instance"])))
    found, count = {}, 0
    for artifact in said.index[said.index.str.endswith(KINDS[kind])]:
        cell = cell_of(artifact)
        mine = groups.get((cell["condition"], cell["run"], cell["instance"]), rows.iloc[:0])
        if cell["target"] is not pd.NA:
            mine = mine[mine["target"] == cell["target"]]
        if digest(mine) != said[artifact]:
            raise EvidenceError(
                f"{folder / kind}.parquet: the rows of {artifact} are not those that were"
                " collected; restore the file from the history, or collect the run again"
            )
        found[artifact], count = mine, count + len(mine)
    if count != len(rows):
        raise EvidenceError(
            f"{folder / kind}.parquet: {len(rows) - count} rows belong to no file that"
            " provenance.parquet lists; restore the file from the history, or collect again"
        )
    return found


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


def _loaded(folder: Path, kind: str) -> pd.DataFrame:
    """All rows of a kind, whose digests have been compared."""
    return pd.concat(_cells(folder, kind).values(), ignore_index=True)


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of targets that have every run and method that their condition has."""
    kept = []
    for _, condition in scores.groupby("condition"):
        cells = condition.drop_duplicates(CELL).groupby("target").size()
        wanted = len(condition[["run", "instance"]].drop_duplicates())
        kept.append(condition[condition["target"].isin(cells.index[cells == wanted])])
    return pd.concat(kept)


def repeated_targets(scores: pd.DataFrame, clean: Sequence[str]) -> dict[int, int]:
    """Target seeds whose image is an earlier seed's, with that seed.

    Two seeds drew the same image if every network trained without poison (of the ``clean``
    conditions) gives both exactly the same probability of the same true class.
    """
    mine = scores[scores["condition"].isin(clean)]
    network = ["condition", "run", "instance", "network"]
    seen: dict[tuple[Any, ...], int] = {}
    repeated = {}
    for target in sorted(mine["target"].unique().tolist()):
        rows = mine[mine["target"] == target].sort_values(network)
        image = tuple(rows[[*network, "true_label", "true_probability"]].itertuples(index=False))
        if image in seen:
            repeated[target] = seen[image]
        else:
            seen[image] = target
    return repeated


# --- from the evidence to tables --------------------------------------------------------------


def build(folder: Path, out: Path) -> None:
    """Make a preset's tables, a figure of each, and ``filter.csv``, in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    scores, traces = complete(_loaded(folder, "scores")), _loaded(folder, "traces")
    scores["target"] = scores["target"].astype(int)
    made = {}
    for name, entry in json.loads((folder / "tables.json").read_text()).items():
        rows = [row for row in entry["rows"] if (scores["condition"] == row["condition"]).any()]
        if not rows:
            continue
        table = tables.table(scores, rows, entry["reference"])
        _write_table(table, entry["title"], entry["note"], out / name)
        picture = figures.rendered(figures.accuracy_asr(table), "png", DPI)
        (out / f"{name}.png").write_bytes(picture)
        _build_distinct(scores, rows, entry, out / f"{name}_distinct")
        made.update({(row["condition"], row["instance"]): row for row in rows})
    caught = pd.concat([_caught(scores, traces, row) for row in made.values()])
    caught.to_csv(out / "filter.csv", index=False, float_format="%.4f", lineterminator="\n")


def _build_distinct(
    scores: pd.DataFrame, rows: list[dict[str, Any]], entry: Mapping[str, Any], to: Path
) -> None:
    """The table again without target seeds that repeat an image, if it has any."""
    shown = scores[scores["condition"].isin([row["condition"] for row in rows])]
    repeated = repeated_targets(scores, sorted({row["clean"] for row in rows}))
    repeated = {seed: first for seed, first in repeated.items() if seed in set(shown["target"])}
    if not repeated:
        return
    distinct = scores[~scores["target"].isin(repeated)]
    left_out = " ".join(
        f"Target seed {seed} is left out: its image is that of seed {first}."
        for seed, first in repeated.items()
    )
    table = tables.table(distinct, rows, entry["reference"])
    _write_table(table, f"{entry['title']}; each image once", f"{entry['note']} {left_out}", to)


def _write_table(table: pd.DataFrame, title: str, note: str, to: Path) -> None:
    to.with_name(f"{to.name}.csv").write_text(tables.csv(table))
    to.with_name(f"{to.name}.md").write_text(tables.markdown(table, title, note))


def _caught(scores: pd.DataFrame, traces: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Per target: mean recall, deviation and shift over the logged iterations of the poisoned
    class, the share of networks that were fooled, and the target's mean margin."""

    def of(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
        chosen = (frame["condition"] == condition) & (frame["instance"] == row["instance"])
        return frame[chosen]

    attacked = of(scores, row["condition"])
    logged = of(traces, row["condition"])
    poisoned = logged[(logged["deviation_before"] > 0) & logged["target"].isin(attacked["target"])]
    caught = poisoned.groupby("target")[CAUGHT].mean()
    for prefix, frame in (("", attacked), ("clean_", of(scores, row["clean"]))):
        fooled = frame["predicted_label"] == frame["adversarial_label"]
        groups = frame.assign(fooled=fooled).groupby("target")
        caught[f"{prefix}fooled"] = groups["fooled"].mean()
        caught[f"{prefix}margin"] = groups["margin"].mean()
    return caught.reset_index().assign(condition=row["condition"], instance=row["instance"])


def main() -> None:
    """Collect or build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="add a run's finished cells to the evidence")
    collecting.add_argument("results", type=Path, help="the folder of the preset's run")
    collecting.add_argument("preset", type=Path, help="the preset's file, as it ran")
    commands.add_parser("build", help="make the tables and figures again")
    args = parser.parse_args()
    if args.command == "collect":
        collect(args.results, args.preset, EVIDENCE)
    for preset in sorted(EVIDENCE.glob("*/preset.yaml")):
        build(preset.parent, preset.parent)


if __name__ == "__main__":
    main()
