"""What the audit catches at its own threshold, and what it flags on clean data.

    python scripts/audit_evidence.py measure emoji audit-emoji.csv
    python scripts/audit_evidence.py measure cifar10 audit-cifar10.csv --data datasets
    python scripts/audit_evidence.py tell audit-emoji.csv audit-cifar10.csv
    python scripts/audit_evidence.py folder emoji drawings --target 50
    rdmdc audit drawings
    python scripts/audit_evidence.py picture emoji docs/attack-and-audit.png --target 50

``measure`` adds a row to the table for each target, with poisons by distribution matching in its
adversarial class, and for each clean resample, a subset of 80 % of each class; rows that are there
already are not measured again, so that it can be interrupted. The audit is `rdmdc audit`'s with its
usual seed; it is not told which images are poisons, or that there are any. ``tell`` sums tables up.
``folder`` writes a poisoned training split as class folders, and the test split beside it.
``picture`` draws a target, some poisons beside their originals, and their scores in that audit.

Targets 0 to 24 are for reporting, 50 to 99 for choosing settings. Poisons are 1/10 of their class
within 112/255 of the drawings and within 128/255 of CIFAR-10, where presets of this project attack.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import rdmdc
from rdmdc.owndata import audit, verdicts
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, PoisonSet
from rdmdc.reporting.figures import rendered

EPS = {"emoji": 112, "cifar10": 128}  # in 255ths
SHARE = 0.8  # of each class in a clean resample
SHOWN = 8  # poisons in a picture
SEED = 0  # of the audit's networks
Splits = tuple[LabelledImages, LabelledImages]


def splits(name: str, data: Path, per_class: int | None = None) -> Splits:
    """Training and test split of "emoji" or of "cifar10", whose Parquet files lie in ``data``."""
    limits = None if per_class is None else (per_class, None)
    if name == "emoji":
        return rdmdc.load_dataset("emoji", per_class=limits)
    files = data / "cifar10-train.parquet", data / "cifar10-test.parquet"
    return rdmdc.load_dataset(*files, image_column="img", per_class=limits)


def crafted(loaded: Splits, name: str, target: int, iterations: int) -> PoisonSet:
    """Poisons of a target's adversarial class."""
    train, test = loaded
    return rdmdc.attack(
        train,
        rdmdc.target(test, target),
        eps=EPS[name],
        poisons="1/10",
        iterations=iterations,
        progress=False,
    )


def resample(train: LabelledImages, number: int) -> LabelledImages:
    """A subset of SHARE of each class, at random."""
    chosen = []
    for label, count in enumerate(train.counts().tolist()):
        drawn = generator("scripts/audit_evidence.py", "resample", number, label)
        order = torch.randperm(count, generator=drawn)[: round(SHARE * count)]
        chosen.append(train.class_start()[label] + order.sort().values)
    kept = torch.cat(chosen)
    return rdmdc.labelled(train.pixels[kept], train.labels[kept], train.class_names)


def measured(images: LabelledImages, poisons: PoisonSet | None) -> dict[str, object]:
    """What the audit flags: recall of the poisons, and what else."""
    begun = time.monotonic()
    rows = verdicts.rows(images, audit.screened(images, SEED, "cpu"), verdicts.SCREEN["fewest"])
    seconds = time.monotonic() - begun
    poisoned = torch.zeros(len(rows), dtype=torch.bool).numpy()
    if poisons is not None:
        poisoned[poisons.indices.numpy()] = True
    judged = verdicts.classes(rows, verdicts.SCREEN["fewest"])
    suspicious = judged[judged["verdict"] == verdicts.FOUND]
    return {
        "images": len(rows),
        "classes": len(judged),
        "poisons": int(poisoned.sum()),
        "poisons_flagged": int(rows["flagged"][poisoned].sum()),
        "others_flagged": int(rows["flagged"][~poisoned].sum()),
        "classes_flagged": len(suspicious),
        "flagged": json.dumps(suspicious["class"].tolist(), ensure_ascii=False),
        "audit_seconds": round(seconds, 1),
    }


def measure(args: argparse.Namespace) -> None:
    """Add the rows that the table lacks."""
    loaded = splits(args.dataset, args.data, args.per_class)
    train = loaded[0]
    done = (
        pd.read_csv(args.table) if args.table.is_file() else pd.DataFrame({"kind": [], "seed": []})
    )
    there = set(zip(done["kind"], done["seed"], strict=True))
    wanted = [("poisoned", seed) for seed in range(*args.targets)]
    wanted += [("clean", seed) for seed in range(args.resamples)]
    for kind, seed in wanted:
        if (kind, seed) in there:
            continue
        said: dict[str, object] = {"dataset": args.dataset, "kind": kind, "seed": seed}
        begun = time.monotonic()
        if kind == "clean":
            row = measured(resample(train, seed), None)
        else:
            poisons = crafted(loaded, args.dataset, seed, args.iterations)
            said["poisoned_class"] = train.class_names[int(poisons.labels[0])]
            row = measured(poisons.apply(train), poisons)
        row["seconds"] = round(time.monotonic() - begun, 1)
        done = pd.concat([done, pd.DataFrame([{**said, **row}])], ignore_index=True)
        args.table.parent.mkdir(parents=True, exist_ok=True)
        done.to_csv(args.table, index=False)
        print(" ".join(f"{key}={value}" for key, value in {**said, **row}.items()), flush=True)


def told(rows: pd.DataFrame) -> list[str]:
    """A line on the poisons and one on the clean resamples of a table."""
    poisoned, clean = (rows[rows["kind"] == kind] for kind in ("poisoned", "clean"))
    lines = []
    if len(poisoned):
        recall = poisoned["poisons_flagged"] / poisoned["poisons"]
        others = poisoned["others_flagged"].sum() / (poisoned["images"] - poisoned["poisons"]).sum()
        lines.append(
            f"{len(poisoned)} targets: {recall.mean():.1%} of the poisons flagged on average, at"
            f" least {recall.min():.1%}; {(recall >= 0.8).sum()} targets with 80 % or more; of all"
            f" other images {others:.2%}"
        )
    if len(clean):
        classes = clean["classes_flagged"] / clean["classes"]
        images = clean["others_flagged"] / clean["images"]
        lines.append(
            f"{len(clean)} clean resamples: {classes.mean():.1%} of the classes flagged on average"
            f" ({classes.min():.1%} to {classes.max():.1%}), {images.mean():.2%} of the images"
            f" ({images.min():.2%} to {images.max():.2%})"
        )
    return lines


def tell(args: argparse.Namespace) -> None:
    """Print what tables amount to."""
    for table in args.tables:
        for line in told(pd.read_csv(table)):
            print(f"{table}: {line}")


def folder(args: argparse.Namespace) -> None:
    """Write both splits as class folders: ``<out>`` with poisons, ``<out>-test``."""
    loaded = splits(args.dataset, args.data, args.per_class)
    poisons = crafted(loaded, args.dataset, args.target, args.iterations)
    out = args.out
    for path, images in ((out, poisons.apply(loaded[0])), (Path(f"{out}-test"), loaded[1])):
        for index, label in enumerate(images.labels.tolist()):
            place = path / images.class_names[label] / f"{index:05d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[index].permute(1, 2, 0).numpy()).save(place)
    name = loaded[0].class_names[int(poisons.labels[0])]
    print(f"{out}: {len(poisons.indices)} poisons in the class {name}")


def picture(args: argparse.Namespace) -> None:
    """Draw a target, poisons beside their originals, and their scores in the audit."""
    loaded = splits(args.dataset, args.data, args.per_class)
    poisons = crafted(loaded, args.dataset, args.target, args.iterations)
    rows = pd.read_parquet(args.audit)
    indices = rows["file"].map(lambda name: int(Path(name).stem)).to_numpy()
    rows["poison"] = np.isin(indices, poisons.indices.numpy())
    label = int(poisons.labels[0])
    args.out.write_bytes(rendered(drawn(loaded, poisons, args.target, rows, label), "png", 160))
    own = rows[rows["label"] == label]
    caught, others = (int(own["flagged"][own["poison"] == bad].sum()) for bad in (True, False))
    print(
        f"{args.out}: {int(own['poison'].sum())} poisons, {caught} of them flagged, and {others}"
        " others of their class"
    )


def drawn(
    loaded: Splits, poisons: PoisonSet, target: int, rows: pd.DataFrame, label: int
) -> Figure:
    """Above the attack: target, originals, poisons. Below the audit: scores of their class."""
    train, test = loaded
    wanted = rdmdc.target(test, target)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=(1.15, 1))
    left, right = above.subfigures(1, 2, width_ratios=(1, 4.6))
    axes = left.subplots()
    _show(axes, wanted.pixels)
    axes.set_title(f"a target,\n{train.class_names[wanted.true_label]}", fontsize=8)
    grid = right.subplots(2, SHOWN)
    for column, index in enumerate(poisons.indices[:SHOWN].tolist()):
        _show(grid[0][column], train.pixels[index])
        _show(grid[1][column], poisons.pixels[column])
    right.suptitle(
        f"images of {train.class_names[label]}, and below as poisons that pull towards the target",
        fontsize=8,
    )
    axes = below.subplots()
    own = rows[rows["label"] == label]
    bins = np.linspace(0, float(own["score"].max()), 40).tolist()
    parts = [own["score"][~own["poison"]], own["score"][own["poison"]]]
    axes.hist(parts, bins, stacked=True, color=["#94a3b8", "#dc2626"], label=["others", "poisons"])
    axes.set(xlabel="score in the audit, which knows no poisons", ylabel="images", yscale="symlog")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, title=f"class {train.class_names[label]}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _show(axes: Axes, pixels: torch.Tensor) -> None:
    axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for run, place in ((measure, "table"), (folder, "out"), (picture, "out")):
        command = commands.add_parser(run.__name__, help=(run.__doc__ or "").rstrip("."))
        command.add_argument("dataset", choices=sorted(EPS))
        command.add_argument(place, type=Path)
        command.add_argument("--data", type=Path, default=Path("datasets"), help="CIFAR-10's files")
        command.add_argument("--per-class", type=int, help="training images kept; default: all")
        command.add_argument("--iterations", type=int, default=300, help="of the attack")
        command.set_defaults(run=run)
        if run is measure:
            command.add_argument("--targets", type=_range, default=(0, 25), help="such as 0-24")
            command.add_argument("--resamples", type=int, default=10)
        else:
            command.add_argument("--target", type=int, default=50)
        if run is picture:
            command.add_argument("--audit", type=Path, default=Path("audit/audit.parquet"))
    command = commands.add_parser("tell", help=(tell.__doc__ or "").rstrip("."))
    command.add_argument("tables", nargs="+", type=Path)
    command.set_defaults(run=tell)
    args = parser.parse_args()
    args.run(args)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first) + 1


if __name__ == "__main__":
    main()
