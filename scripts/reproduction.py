"""The committed evidence becomes tables and figures: for docs/reproduction.md.

    python scripts/reproduction.py collect results/cifar10_cpu config/cifar10-cpu.yaml
    python scripts/reproduction.py build

``collect`` adds the finished cells of a run to the evidence (scripts/evidence.py). ``build`` makes
``table*.csv``, ``table*.md`` and ``table*.png`` again from the evidence alone, ``filter.csv``: what
each method's filter caught, and ``screens.csv``: what each screen left out.

Where several target seeds drew the same image, ``table*_distinct`` keeps only the first of them.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evidence
import pandas as pd

from rdmdc.reporting import figures, table_texts, tables
from rdmdc.reporting.accuracy_asr import accuracy_asr

EVIDENCE = Path(__file__).parents[1] / "docs" / "reproduction"
CELL = ["condition", "target", "run", "method"]
CAUGHT = ["recall", "deviation_before", "deviation_after", "shift_before", "shift_after"]
DPI = 150


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of targets that have every run and method that their condition has."""
    kept = []
    for _, condition in scores.groupby("condition"):
        cells = condition.drop_duplicates(CELL).groupby("target").size()
        wanted = len(condition[["run", "method"]].drop_duplicates())
        kept.append(condition[condition["target"].isin(cells.index[cells == wanted])])
    return pd.concat(kept)


def repeated_targets(scores: pd.DataFrame, clean: Sequence[str]) -> dict[int, int]:
    """Target seeds whose image is an earlier seed's, with that seed.

    Two seeds drew the same image if every network trained without poison (of the ``clean``
    conditions) gives both exactly the same probability of the same true class.
    """
    mine = scores[scores["condition"].isin(clean)]
    network = ["condition", "run", "method", "architecture", "network"]
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


def build(folder: Path, out: Path) -> None:
    """Make a preset's tables, a figure of each, and what filters and screens caught, in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    scores = complete(evidence.load(folder, "scores"))
    traces = evidence.load(folder, "traces")
    scores["target"] = scores["target"].astype(int)
    made = {}
    for name, entry in json.loads((folder / "tables.json").read_text()).items():
        rows = [row for row in entry["rows"] if (scores["condition"] == row["condition"]).any()]
        if not rows:
            continue
        table = tables.table(scores, rows, entry["reference"])
        _write_table(table, entry["title"], entry["note"], out / name)
        picture = figures.rendered(accuracy_asr(table), "png", DPI)
        (out / f"{name}.png").write_bytes(picture)
        _build_distinct(scores, rows, entry, out / f"{name}_distinct")
        made.update({(r["condition"], r["method"], r["architecture"]): r for r in rows})
    caught = pd.concat([_caught(scores, traces, row) for row in made.values()])
    _write_csv(caught, out / "filter.csv")
    if (folder / "screenings.parquet").exists():
        _write_csv(left_out(evidence.load(folder, "screenings")), out / "screens.csv")


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
    to.with_name(f"{to.name}.csv").write_text(table_texts.csv(table))
    to.with_name(f"{to.name}.md").write_text(table_texts.markdown(table, title, note))


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")


def _caught(scores: pd.DataFrame, traces: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Per target: mean recall, deviation and shift over the logged iterations of the poisoned
    class, the share of networks that were fooled, and the target's mean margin."""

    def of(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
        return frame[(frame["condition"] == condition) & (frame["method"] == row["method"])]

    scores = scores[scores["architecture"] == row["architecture"]]
    attacked = of(scores, row["condition"])
    logged = of(traces, row["condition"])
    poisoned = logged[(logged["deviation_before"] > 0) & logged["target"].isin(attacked["target"])]
    caught = poisoned.groupby("target")[CAUGHT].mean()
    for prefix, frame in (("", attacked), ("clean_", of(scores, row["clean"]))):
        fooled = frame["predicted_label"] == frame["adversarial_label"]
        groups = frame.assign(fooled=fooled).groupby("target")
        caught[f"{prefix}fooled"] = groups["fooled"].mean()
        caught[f"{prefix}margin"] = groups["margin"].mean()
    names = {name: row[name] for name in ("condition", "method", "architecture")}
    return caught.reset_index().assign(**names)


def left_out(screenings: pd.DataFrame) -> pd.DataFrame:
    """Per condition, target and screen: poisons, the share of them that was left out (``recall``),
    the share of all other images, and the number of classes that lost any."""
    key = ["condition", "target", "screen"]
    rows = []
    for names, case in screenings.groupby(key, dropna=False):
        classes = case.drop_duplicates("label")
        poisons = case["rank"].notna().sum()
        caught = (case["kept"] == 0).sum()
        others = (classes["left_out"].sum() - caught) / (classes["images"].sum() - poisons)
        rows.append(
            {
                **dict(zip(key, names, strict=True)),
                "poisons": poisons,
                "recall": caught / poisons if poisons else float("nan"),
                "others_left_out": others,
                "classes_flagged": (classes["left_out"] > 0).sum(),
            }
        )
    return pd.DataFrame(rows).astype({"target": "Int64"})


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
        evidence.collect(args.results, args.preset, EVIDENCE)
    for preset in sorted(EVIDENCE.glob("*/preset.yaml")):
        build(preset.parent, preset.parent)


if __name__ == "__main__":
    main()
