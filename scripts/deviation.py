"""Poisoned deviation (Def. 4.1) and the filter's recall against ε, D and Lemma 4.1's condition.

    python scripts/deviation.py gaussians
    python scripts/deviation.py real results/cifar10_cpu
    python scripts/deviation.py draw

``gaussians`` needs nothing; ``real`` needs a preset's data and poisons, and measures on embeddings
by random networks. Both write a table of means below docs/reproduction/deviation, from which
``draw`` makes the figure. ``alpha`` is Lemma 4.1's α = ε‖μ_D − μ_B‖² / σ², with σ² the larger of
the two covariances' largest eigenvalues.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from torch import Tensor

from rdmdc.condensers.deviation import trace_rows
from rdmdc.estimators.spectral_mean import Options, spectral_mean
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.storage.images import load_images, load_poisons

FOLDER = Path(__file__).parents[1] / "docs" / "reproduction" / "deviation"
STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
RATES = (2, 5, 10, 20)  # ε in per cent of the batch; the filter drops 3ε
ITERATIONS = 10  # of the power method, as in the presets
MANY_ITERATIONS = 100  # enough to find the top direction of every batch of Gaussians
LEMMA = 2665 / 576  # what α must exceed
BATCH = 256
SHOWN = 64  # of the squared distances of Gaussians' means, in the figure against ε and D
WIDTHS = (32, 64, 128)  # of the ConvNet, on real poisons
REPEATS = 10  # batches, or networks with a batch each


def measured(
    clean: Tensor, poisons: Tensor, rate: int, iterations: int, purpose: tuple[Any, ...]
) -> dict[str, Any]:
    """One batch's row: clean (N, D) and poisons (P, D), filtered by RDM-DC at a drop of 3ε."""
    embeddings = torch.cat([clean, poisons])[None]
    poisoned = torch.arange(embeddings.shape[1])[None] >= len(clean)
    generators = [generator(*purpose, "estimate")]
    options = Options(drop=f"{3 * rate}/100", power_iterations=iterations)

    def estimator(classes: Any, batch: Tensor) -> Any:
        return spectral_mean(batch, generators, options)

    (row,) = trace_rows(embeddings, poisoned, estimator([0], embeddings), [0], estimator)
    return row


def gaussian_rows(
    dimensions: tuple[int, ...], gaps: tuple[float, ...], repeats: int
) -> Iterator[dict[str, Any]]:
    """Clean N(1, I) and poisons N(1 + √gap u, I), u a random direction: features of size one, as
    Eq. 6 supposes; squared distances ``gap`` of the means. Two rows for each batch: RDM-DC's filter
    with ITERATIONS and with MANY_ITERATIONS of the power method, started from the same vector."""
    for size, gap, rate, repeat in (
        (d, g, r, n) for d in dimensions for g in gaps for r in RATES for n in range(repeats)
    ):
        purpose = ("deviation", size, repr(gap), rate, repeat)
        draws = generator(*purpose)
        count = round(BATCH * rate / 100)
        towards = torch.randn(size, generator=draws)
        clean = 1 + torch.randn(BATCH - count, size, generator=draws)
        moved = 1 + gap**0.5 * towards / towards.norm()
        poisons = moved + torch.randn(count, size, generator=draws)
        # Lemma 4.1's order: all but a share ε of the poisons' part of the mean is gone
        bound = (rate / 100) ** 2 * float(moved.norm())
        for iterations in (ITERATIONS, MANY_ITERATIONS):
            row = measured(clean, poisons, rate, iterations, purpose)
            keys = {"features": size, "gap": gap, "rate": rate, "power_iterations": iterations}
            yield {**keys, "bound": bound, **row}


@torch.no_grad()
def real_rows(results: Path, widths: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """Poisons of a preset beside clean images of their class, in embeddings by random networks
    under the real images' augmentation. A row a network, poison set, width and ε."""
    train = load_images(results / "data" / "train.safetensors")
    channels, side = train.pixels.shape[1], train.pixels.shape[2]
    for path in sorted(results.glob("*/target=*/poisons.safetensors")):
        poison = load_poisons(path, train=train)
        case = path.parent.relative_to(results)
        label = int(poison.labels[0])
        if (poison.labels != label).any():
            continue  # untargeted: of all classes
        members = (train.labels == label).nonzero().flatten()
        members = members[~torch.isin(members, poison.indices)]
        for width, repeat in ((w, n) for w in widths for n in range(repeats)):
            # not of the case: all are seen by the same networks
            purpose = ("deviation", "real", width, repeat)
            draws = generator(*purpose)
            network = ConvNet(channels, side, len(train.class_names), width, 3)
            weights = running.to(network.draw(draws), "cpu")
            drawn = draw(STRATEGY, 1, draws, shared=True)
            chosen = members[torch.randperm(len(members), generator=draws)[: 4 * BATCH]]
            pixels = torch.cat([train.pixels[chosen], poison.pixels])
            inputs = augment(train.normalisation.normalise(pixels)[None], drawn)[0]
            embeddings = running.embed_all(network, weights, inputs)
            clean, poisons = embeddings[: len(chosen)], embeddings[len(chosen) :]
            gap = float((clean.mean(0) - poisons.mean(0)).square().sum())
            spread = max(map(_top_variance, (clean, poisons)))
            for rate in RATES:
                count = round(BATCH * rate / 100)
                mixed = torch.randperm(len(poisons), generator=draws)[:count]
                row = measured(
                    clean[: BATCH - count], poisons[mixed], rate, ITERATIONS, (*purpose, rate)
                )
                yield {
                    "condition": case.parts[0],
                    "target": int(case.parts[1].removeprefix("target=")),
                    "width": width,
                    "features": network.features,
                    "rate": rate,
                    "gap": gap,
                    "variance": spread,
                    "alpha": rate / 100 * gap / spread,
                    **row,
                }


def _top_variance(embeddings: Tensor) -> float:
    """The covariance's largest eigenvalue."""
    centred = embeddings - embeddings.mean(0)
    return float(torch.linalg.eigvalsh(centred @ centred.T)[-1] / (len(centred) - 1))


def means(rows: Iterator[dict[str, Any]], keys: list[str]) -> pd.DataFrame:
    """The rows' means by what was set, and how many they are of."""
    frame = pd.DataFrame(rows).drop(columns=["poisons", "kept", "precision"])
    groups = frame.groupby(keys, sort=True)
    table = groups.mean().assign(batches=groups.size())
    return table.reset_index()


def exponent(x: pd.Series, y: pd.Series) -> float:
    """p of y ∝ xᵖ by least squares of logarithms."""
    values = [torch.tensor(column.to_numpy(), dtype=torch.float64).log() for column in (x, y)]
    a, b = (value - value.mean() for value in values)
    return float((a * b).sum() / a.square().sum())


def figure(gaussian: pd.DataFrame, real: pd.DataFrame, path: Path) -> None:
    """Deviation against ε, against D, and recall against α, with ITERATIONS of the power method."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    gaussian = gaussian[gaussian["power_iterations"] == ITERATIONS]
    fig, (by_rate, by_size, by_alpha) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    sets = {
        "Gaussians": gaussian[gaussian["gap"] == SHOWN],
        "DM poison 128/255": real[real["condition"] == "dm_128"],
    }
    for axes, key in ((by_rate, "rate"), (by_size, "features")):
        for colour, (name, frame) in zip(("C0", "C1"), sets.items(), strict=True):
            middle = frame["features"].median()
            shown = frame[frame["features"] == middle if key == "rate" else frame["rate"] == 10]
            lines = shown.groupby(key).mean(numeric_only=True)
            label = f"{name}, D {middle:.0f}" if key == "rate" else name
            for when, dash in (("before", "-"), ("after", "--")):
                values = lines[f"deviation_{when}"]
                axes.plot(values.index, values, f"o{dash}", color=colour, label=f"{label}, {when}")
            if name == "Gaussians":
                bound = lines["bound"]
                axes.plot(bound.index, bound, ":", color=colour, label="Lemma 4.1, Gaussians")
                rate, size = (lines.index / 100, middle) if key == "rate" else (0.1, lines.index)
                axes.plot(lines.index, rate * size**0.5, ":", color="#999999", label="Eq. 6: ε√D")
        axes.set_xscale("log")
        axes.set_xticks(gaussian[key].unique(), gaussian[key].unique())
        axes.minorticks_off()
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=7)
    by_rate.set(xlabel="ε, % of the batch", ylabel="poisoned deviation")
    by_size.set(xlabel="D, features; ε = 10 %")
    at = gaussian[gaussian["rate"] == 10]
    for features, line in at.groupby("features"):
        by_alpha.plot(line["gap"] / 10, line["recall"], label=f"Gaussians, D {features}")
    at = real[(real["rate"] == 10) & (real["width"] == real["width"].median())]
    for condition, frame in at.groupby("condition"):
        by_alpha.plot(frame["alpha"], frame["recall"], "o", ms=4, label=f"{condition}, by target")
    by_alpha.axvline(LEMMA, color="#999999", lw=1)
    by_alpha.set(xscale="log", xlabel="α (line: what Lemma 4.1 asks)", ylabel="recall; ε = 10 %")
    by_alpha.legend(frameon=False, fontsize=7)
    fig.savefig(path, dpi=120)


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gaussians", help="measure on Gaussians")
    real = commands.add_parser("real", help="measure on a preset's poisons")
    real.add_argument("results", type=Path, help="the preset's folder below results/")
    commands.add_parser("draw", help="draw the figure from both tables")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = {name: FOLDER / f"{name}.csv" for name in ("gaussians", "real")}
    if args.command == "draw":
        figure(*(pd.read_csv(path) for path in paths.values()), FOLDER / "deviation.png")
        return
    if args.command == "gaussians":
        gaps = tuple(2.0**power for power in range(1, 10))
        rows = gaussian_rows((128, 512, 2048), gaps, REPEATS)
        table = means(rows, ["features", "gap", "rate", "power_iterations"])
    else:
        running.compiling(True, "cpu", ConvNet(3, 32, 10, WIDTHS[0], 3))
        rows = real_rows(args.results, WIDTHS, REPEATS)
        table = means(rows, ["condition", "target", "width", "features", "rate"])
    table.to_csv(paths[args.command], index=False, float_format="%.5g", lineterminator="\n")


if __name__ == "__main__":
    main()
