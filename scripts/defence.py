"""What a screen caught, and the plane in which one sees it: for docs/defence.md.

    python scripts/defence.py caught results/default contrastive_minorities
    python scripts/defence.py plane results/default dm_112/target=0 docs/defence.png

``caught`` prints a row for each case that was screened: how many poisons there are, what share the
screen left out, and the share of all other images. ``plane`` draws the images of the adversarial
class in one random network: along the direction in which the class varies most (Alg. 4), and along
the one in which it varies most compared with the other classes.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors import safe_open

from rdmdc.contrast import top_contrast
from rdmdc.estimators.spectral_mean import top_direction
from rdmdc.models import running
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages
from rdmdc.reporting.figures import rendered
from rdmdc.storage.images import load_images, load_poisons
from rdmdc.storage.rows import load_all_rows
from rdmdc.training_data import TrainingData

OTHERS, RIDGE, ITERATIONS = 384, 0.1, 20  # as in config.yaml


def caught(results: Path, screen: str) -> pd.DataFrame:
    """A row for each case: poisons, those left out, and other images left out."""
    paths = sorted(results.glob(f"**/screens/{screen}.parquet"))
    rows = []
    for path, screening in zip(paths, load_all_rows(paths, "screening"), strict=True):
        case = path.parent.parent
        poisoned = torch.zeros(len(screening), dtype=torch.bool).numpy()
        if (case / "poisons.safetensors").is_file():
            poisoned[load_poisons(case / "poisons.safetensors").indices.numpy()] = True
        out = ~screening["kept"].to_numpy()
        labels = set(screening.loc[out, "label"])
        rows.append(
            {
                "case": str(case.relative_to(results)),
                "poisons": int(poisoned.sum()),
                "recall": out[poisoned].mean() if poisoned.any() else float("nan"),
                "others left out": out[~poisoned].mean(),
                "classes flagged": len(labels),
            }
        )
    return pd.DataFrame(rows)


def plane(results: Path, case: str) -> Figure:
    """The adversarial class of a case in the plane of the two directions, poisons marked."""
    train = load_images(results / "data" / "train.safetensors")
    poisons = load_poisons(results / case / "poisons.safetensors", train=train)
    data = TrainingData(train, poisons)
    label = int(poisons.labels[0])
    network = _network(results / case / "poisons.safetensors", train)
    weights = network.draw(generator("scripts/defence.py", "network"))

    def embedded(indices: torch.Tensor) -> torch.Tensor:
        inputs = train.normalisation.normalise(data.pixels(indices))
        return running.embed_all(network, weights, inputs)

    own = data.indices(label)
    centred = embedded(own)
    centred = centred - centred.mean(0)
    others = []
    for c in range(len(train.class_names)):
        if c != label:
            drawn = generator("scripts/defence.py", "others", c)
            each = OTHERS // (len(train.class_names) - 1)
            rows = embedded(
                data.indices(c)[torch.randperm(data.counts()[c], generator=drawn)[:each]]
            )
            others.append(rows - rows.mean(0))
    drawn = generator("scripts/defence.py", "direction")
    contrast = top_contrast(centred, torch.cat(others), RIDGE, ITERATIONS, drawn).directions[:, 0]
    spectral = top_direction(centred[None], [drawn], 100)[0]
    x, y = centred @ contrast, centred @ spectral
    poisoned = data.poisoned(own)
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(x[~poisoned], y[~poisoned], s=6, c="#0072B2", label="clean images", linewidths=0)
    axes.scatter(x[poisoned], y[poisoned], s=9, c="#D55E00", label="poisons", linewidths=0)
    axes.set_xlabel("along the contrast with the other classes")
    axes.set_ylabel("along the class's own top direction (Alg. 4)")
    axes.set_title(f"{train.class_names[label]}: {len(own)} images in one random network")
    axes.legend(frameon=False)
    return figure


def _network(poisons: Path, train: LabelledImages) -> ConvNet:
    """The ConvNet of the preset that made the poisons."""
    with safe_open(poisons, "pt") as file:
        options = json.loads(file.metadata()["rdmdc"])["options"]["network"]
    _, channels, side, _ = train.pixels.shape
    return ConvNet(channels, side, len(train.class_names), options["width"], options["depth"])


def main() -> None:
    """Print or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("caught", help="what a screen caught, as a table")
    table.add_argument("results", type=Path)
    table.add_argument("screen")
    picture = commands.add_parser("plane", help="a class in the plane of the two directions")
    picture.add_argument("results", type=Path)
    picture.add_argument("case")
    picture.add_argument("png", type=Path)
    args = parser.parse_args()
    if args.command == "caught":
        print(caught(args.results, args.screen).to_markdown(index=False, floatfmt=".3f"))
    else:
        args.png.write_bytes(rendered(plane(args.results, args.case), "png", 150))


if __name__ == "__main__":
    main()
