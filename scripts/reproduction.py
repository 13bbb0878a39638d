"""The committed evidence: scores and traces of runs, and the tables and figures made from them.

    python scripts/reproduction.py collect config/cifar10-cpu.yaml
    python scripts/reproduction.py build

``collect`` copies what has been finished below results/, ``build`` makes tables and figures from
what is committed. Each folder of docs/reproduction is a preset's: ``preset.yaml`` as it ran, then
``<case>/run=<run>/`` as below results/, with sidecars. A condition counts the targets that have all
of its panels' scores.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rdmdc.reporting import figures, tables as report
from rdmdc.storage import artifacts
from rdmdc.workflow import presets as conditions
from rdmdc.storage.provenance import SUFFIX, verified

EVIDENCE = Path(__file__).parents[1] / "docs" / "reproduction"
KEPT = ("scores", "trace")
DPI = 150


def collect(preset: Path, results: Path, evidence: Path) -> None:
    """Copy the preset, and each finished cell's scores and trace with their sidecars."""
    config = yaml.safe_load(preset.read_text())
    source, folder = results / config["preset"], evidence / config["preset"]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(preset, folder / "preset.yaml")
    for scores in sorted(source.rglob("*.scores.parquet")):
        for kept in KEPT:
            path = scores.with_name(scores.name.replace("scores", kept))
            verified(path)
            to = folder / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
            shutil.copy(path.with_name(path.name + SUFFIX), to.with_name(to.name + SUFFIX))


def build(folder: Path, out: Path) -> None:
    """A preset's tables, a figure of each, and what its filters caught."""
    config = yaml.safe_load((folder / "preset.yaml").read_text())
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for name in config["tables"]:
        options = conditions.table_options(config, name)
        rows = [row for row in options["rows"] if _complete(folder, config, row["condition"])]
        if not rows:
            continue
        scores = pd.concat(
            [_rows(folder, config, row, "scores") for row in _cells(rows, options["reference"])]
        )
        table = report.table(scores, rows, options["reference"])
        (out / f"{name}.csv").write_text(report.csv(table))
        (out / f"{name}.md").write_text(report.markdown(table, options["title"], options["note"]))
        picture = figures.rendered(figures.accuracy_asr(table), "png", DPI)
        (out / f"{name}.png").write_bytes(picture)
        made.update({(row["condition"], row["instance"]): row for row in rows})
    caught = pd.concat([_caught(folder, config, row) for row in made.values()])
    caught.to_csv(out / "filter.csv", index=False, float_format="%.4f", lineterminator="\n")


def _complete(folder: Path, config: conditions.Config, condition: str) -> list[str]:
    """The condition's cases that have the scores of all its estimators and runs."""
    panels = config["conditions"][condition]["panels"]
    names = [name for panel in panels for name in config["panels"][panel]]
    return [
        case
        for case in conditions.cases(config, condition)
        if all(
            (folder / case / f"run={run}" / f"{name}.scores.parquet").is_file()
            for name in names
            for run in range(config["runs"])
        )
    ]


def _cells(rows: list[dict[str, Any]], reference: str) -> Iterator[dict[str, Any]]:
    """Each condition and estimator that the rows read, once: their own, clean, the reference's."""
    pairs = {(row[kind], row["instance"]) for row in rows for kind in ("condition", "clean")}
    pairs |= {(row["condition"], reference) for row in rows}
    for condition, instance in sorted(pairs):
        yield {"condition": condition, "instance": instance}


def _rows(folder: Path, config: conditions.Config, row: dict[str, Any], kind: str) -> pd.DataFrame:
    found = []
    for case in _complete(folder, config, row["condition"]):
        for run in range(config["runs"]):
            path = folder / case / f"run={run}" / f"{row['instance']}.{kind}.parquet"
            verified(path)
            found.append(artifacts.load_rows(path, kind).assign(case=case, run=run))
    return pd.concat(found)


def _caught(folder: Path, config: conditions.Config, row: dict[str, Any]) -> pd.DataFrame:
    """Per target: mean recall, deviation and shift over the poisoned class's logged iterations,
    beside the share of networks that were fooled and the margin of the target."""
    traces = _rows(folder, config, row, "trace")
    traces["target"] = traces["case"].str.extract(r"target=(\d+)", expand=False).astype(int)
    poisoned = traces[traces["deviation_before"] > 0]
    columns = ["recall", "deviation_before", "deviation_after", "shift_before", "shift_after"]
    caught = poisoned.groupby("target")[columns].mean()
    scores = _rows(folder, config, row, "scores")
    clean = _rows(folder, config, {**row, "condition": row["clean"]}, "scores")
    for prefix, frame in (("", scores), ("clean_", clean)):
        fooled = frame["predicted_label"] == frame["adversarial_label"]
        groups = frame.assign(fooled=fooled).groupby("target")
        caught[f"{prefix}fooled"] = groups["fooled"].mean()
        caught[f"{prefix}margin"] = groups["margin"].mean()
    return caught.reset_index().assign(condition=row["condition"], instance=row["instance"])


def main() -> None:
    """Collect or build."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="copy finished cells' scores and traces")
    collecting.add_argument("preset", type=Path, help="the preset's file, as it ran")
    collecting.add_argument("--results", type=Path, default=Path("results"))
    commands.add_parser("build", help="make the tables and figures again")
    args = parser.parse_args()
    if args.command == "collect":
        collect(args.preset, args.results, EVIDENCE)
    for preset in sorted(EVIDENCE.glob("*/preset.yaml")):
        build(preset.parent, preset.parent)


if __name__ == "__main__":
    main()
