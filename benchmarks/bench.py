"""`make bench`: this package beside the public DM code's shape, on CIFAR-10's shapes, side by side.

The other side of condensation and of evaluation networks is `reference.py`, which costs what the
public code costs; of attacks, which that code does not have, the textbook loop.

Two processes take turns, one for each side, with the same number of threads: what one does to its
memory allocator does not help the other. A work's ratio is the median over pairs of neighbouring
runs; low and high are the smallest and the largest. Random pixels: speed does not depend on them.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import reference
import textbook
import torch
import torch.nn.functional as F

from rdmdc.attacks.crafting import Crafting, Scene, differentiate
from rdmdc.attacks.dm_poison import dm_objective
from rdmdc.attacks.gradient_matching import gradient_matching_objective, target_gradients
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.dm import Options, dm
from rdmdc.condensers.task import Calibration, Task
from rdmdc.estimators import spectral_mean as spectral
from rdmdc.estimators.estimate import Drop
from rdmdc.estimators.mean import mean
from rdmdc.estimators.median import median
from rdmdc.estimators.trimmed_mean import trimmed_mean
from rdmdc.estimators.truncated_mean import truncated_mean
from rdmdc.models import running
from rdmdc.models.augment import augment, draw
from rdmdc.models.native.convnet import products
from rdmdc.models.training import Schedule, fit
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, Normalisation, Target
from rdmdc.training_data import TrainingData

CLASSES, SIDE, EACH = 10, 32, 1000
STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
ENOUGH_SECONDS = 40.0  # of a work; three runs are made in any case
ITERATIONS = 2  # of condensation in a step, so that what a run does once weighs little
K = 77  # ⌈3/10 · 256⌉
DROP = Drop(drop="3/10")
PANEL = {
    "dm": Calibration(mean, None),
    "median": Calibration(median, None),
    "trimmed": Calibration(trimmed_mean, DROP),
    "truncated": Calibration(truncated_mean, DROP),
    "rdm_dc": Calibration(
        spectral.spectral_mean, spectral.Options(drop="3/10", power_iterations=10)
    ),
}
BOOK = {
    "dm": textbook.mean,
    "median": textbook.median,
    "trimmed": textbook.trimmed,
    "truncated": textbook.truncated,
    "rdm_dc": textbook.spectral,
}
Step = Callable[[], object]


def quiet(done: int, total: int, loss: float) -> None:
    """No progress."""


def network_of(width: int) -> ConvNet:
    """CIFAR-10's ConvNet."""
    return ConvNet(3, SIDE, CLASSES, width, 3)


def train_split() -> LabelledImages:
    """Random pixels in ten classes."""
    draws = generator("bench pixels")
    shape = (CLASSES * EACH, 3, SIDE, SIDE)
    pixels = torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    names = tuple(
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    )
    return LabelledImages(pixels, labels, names, Normalisation((0.5,) * 3, (0.25,) * 3))


# --- works: a step of each side --------------------------------------------------------------


def condensation(side: str, width: int, ipc: int, batch: int, names: list[str]) -> Step:
    """One iteration of condensation with some estimators, on either side."""
    train, network = train_split(), network_of(width)
    if side == "ours":
        options = Options(
            ipc=ipc,
            batch=batch,
            iterations=ITERATIONS,
            learning_rate=1.0,
            momentum=0.5,
            initialisation="noise",
            log_every=10**6,
        )
        panel = {name: PANEL[name] for name in names}
        task = Task(TrainingData(train), network, STRATEGY, panel, 0, 0, "cpu")
        return partial(dm, task, options, quiet, NoCheckpoints())
    images = train.normalisation.normalise(train.pixels)
    loops = [
        reference.Condensation(images, CLASSES, width, ipc, batch, centre(BOOK[name]))
        for name in names
    ]

    def step() -> None:
        for loop in loops * ITERATIONS:
            loop.iterate(STRATEGY)

    return step


def centre(estimator: textbook.Estimator) -> reference.Estimator:
    """A textbook's estimator with its number of drops and a random start."""
    return lambda embeddings: estimator(embeddings, K, torch.randn(embeddings.shape[1]))


def crafting(side: str, attack: str, width: int, victims: int) -> Step:
    """The gradient of one step of an attack with 500 poisons."""
    train, network = train_split(), network_of(width)
    target = Target(0, 0, train.pixels[0], 0, 1)
    trained = tuple(running.to(network.draw(generator("victim", v)), "cpu") for v in range(victims))
    indices = torch.arange(EACH, EACH + 500)
    values = train.pixels[indices].float()
    if side == "ours":
        scene = Scene(train, target, network, trained, 500, 0, "cpu")
        options = Crafting(
            eps=64,
            step=1.0,
            restarts=1,
            iterations=1,
            optimiser="sign_adam",
            scoring_draws=1,
            augmentation=STRATEGY,
        )
        if attack == "dm_poison":
            objective = partial(dm_objective, scene, options)
        else:
            wanted = target_gradients(scene)
            objective = partial(gradient_matching_objective, scene, options, wanted)
        return lambda: differentiate(objective, values, (0,))
    normalise = train.normalisation.normalise
    books = [textbook.ConvNet(weights, frozen=False) for weights in trained]
    wanted = []
    for book in books:
        loss = F.cross_entropy(book(normalise(target.pixels[None])), torch.tensor([1]))
        wanted.append(torch.autograd.grad(loss, list(book.parameters())))

    def step() -> None:
        count = 1 if attack == "dm_poison" else len(values)
        drawn = draw(STRATEGY, count, generator("augment"), shared=True)
        inputs = normalise(values)
        if attack == "dm_poison":
            book = textbook.ConvNet(network.draw(generator("network")), frozen=True)
            seen = augment(torch.cat([normalise(target.pixels[None]), inputs])[None], drawn)[0]
            textbook.dm_poison_gradient(book, seen[0], seen[1:])
        else:
            seen = augment(inputs.unsqueeze(1), drawn).squeeze(1)
            textbook.gradient_matching_gradient(books, wanted, seen, 1)

    return step


def training(side: str, width: int, images: int, epochs: int) -> Step:
    """The training of an evaluation network on a condensed set."""
    network = network_of(width)
    inputs = torch.randn(images, 3, SIDE, SIDE)
    labels = torch.arange(CLASSES).repeat_interleave(images // CLASSES)
    if side != "ours":
        return partial(reference.train, inputs, labels, width, epochs, STRATEGY)
    schedule = Schedule(
        epochs=epochs,
        batch=256,
        learning_rate=0.01,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        decay_after="1",
        augmentation=STRATEGY,
    )
    pixels = lambda chosen: inputs[chosen]  # noqa: E731
    return partial(fit, network, pixels, labels, schedule, (0,), quiet, NoCheckpoints())


def convolution(side: str) -> Step:
    """2560 embeddings at width 128; the other side is conv2d alone, in its best memory order."""
    network = network_of(128)
    weights = running.to(network.draw(generator("network")), "cpu")
    if side == "ours":
        inputs = torch.randn(2560, 3, SIDE, SIDE)
        return partial(running.embed_all, network, weights, inputs)
    blocks = []
    for b, (channels, side_) in enumerate(((3, 32), (128, 16), (128, 8))):
        inputs = torch.randn(16, channels, side_, side_)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        blocks.append((inputs, weights[f"conv{b}.weight"]))

    @torch.no_grad()
    def step() -> None:
        for _ in range(2560 // 16):
            for inputs, kernels in blocks:
                F.conv2d(inputs, kernels, padding=1)

    return step


def filtering(side: str) -> Step:
    """An iteration of RDM-DC; the other side is one of plain DM, by the same code."""
    names = ["rdm_dc" if side == "ours" else "dm"]
    return condensation("ours", 128, 50, 256, names)


def ours(side: str, width: int, ipc: int, batch: int) -> Step:
    """An iteration of plain DM by this package, on both sides: they differ in precision."""
    return condensation("ours", width, ipc, batch, ["dm"])


@dataclass(frozen=True)
class Work:
    """What is measured beside what, and the ratio that it must and should reach."""

    name: str
    other: str
    step: Callable[[str], Step]
    must: float
    aim: float
    precision: str = "float32"  # of ours; the other side's is always that


ALL = list(PANEL)
WIDE = {"width": 128, "ipc": 50, "batch": 256}
SMALL = {"width": 32, "ipc": 10, "batch": 128}
REFERENCE, TEXTBOOK, OURS = "reference's shape", "textbook", "ours"
HALF = "bfloat16"
WORKS = [
    Work(
        "DM iteration, width 128, M 50, N 256",
        REFERENCE,
        partial(condensation, names=["dm"], **WIDE),
        3.8,
        5,
    ),
    Work(
        "DM iteration, width 128, M 50, N 256, bf16",
        REFERENCE,
        partial(condensation, names=["dm"], **WIDE),
        6,
        9,
        HALF,
    ),
    Work(
        "DM iteration, width 32, M 10, N 128",
        REFERENCE,
        partial(condensation, names=["dm"], **SMALL),
        5,
        8,
    ),
    Work(
        "DM iteration, width 32, M 10, N 128, bf16",
        REFERENCE,
        partial(condensation, names=["dm"], **SMALL),
        5,
        8,
        HALF,
    ),
    Work(
        "40 epochs of an evaluation network, width 32, 70 images",
        REFERENCE,
        partial(training, width=32, images=70, epochs=40),
        4,
        6,
    ),
    Work(
        "2 epochs of an evaluation network, width 128, 500 images",
        REFERENCE,
        partial(training, width=128, images=500, epochs=2),
        4,
        6,
    ),
    Work(
        "five estimators in a panel against five loops",
        REFERENCE,
        partial(condensation, names=ALL, **WIDE),
        8,
        12,
    ),
    Work(
        "five estimators in a panel against five loops, bf16",
        REFERENCE,
        partial(condensation, names=ALL, **WIDE),
        8,
        12,
        HALF,
    ),
    Work("DM iteration, width 128, bf16 against float32", OURS, partial(ours, **WIDE), 1, 2, HALF),
    Work("DM iteration, width 32, bf16 against float32", OURS, partial(ours, **SMALL), 1, 2, HALF),
    Work(
        "DM poisoning step, P 500, width 128",
        TEXTBOOK,
        partial(crafting, attack="dm_poison", width=128, victims=0),
        2.5,
        4,
    ),
    Work(
        "gradient matching step, P 500, 4 victims, width 32",
        TEXTBOOK,
        partial(crafting, attack="gradient_matching", width=32, victims=4),
        1.8,
        3,
    ),
    Work("2560 embeddings against conv2d alone", "conv2d", convolution, 0.55, 0.75),
    Work("RDM-DC's iteration over DM's", OURS, filtering, 1.08, 1.03),
]
"""The last is a cost: less is better."""


# --- measuring -------------------------------------------------------------------------------


def worker(side: str, threads: int, pipe: Connection) -> None:
    """Time steps on request: a work's index, or None to end."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    step: Step = lambda: None  # noqa: E731
    while (order := pipe.recv()) is not None:
        kind, index = order
        if kind == "set up":
            work, network = WORKS[index], network_of(128)
            compiled = side == "ours" or work.other == OURS
            precision = work.precision if side == "ours" else "float32"
            if reason := running.compiling(compiled, "cpu", network, precision):
                raise SystemExit(f"bench: {reason}")
            step = work.step(side)
            step()
            pipe.send(0.0)
        else:
            start = time.perf_counter()
            step()
            pipe.send(time.perf_counter() - start)


def name_of_processor() -> str:
    """Its name, and what bf16 products are of here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), ": unknown")
    return f"{model.partition(': ')[2]}, bf16 by {products(HALF).name}"


def measure(threads: int, runs: int, only: str) -> pd.DataFrame:
    """All works, both sides in turn: seconds, ratio, its spread, and what was asked for."""
    context = multiprocessing.get_context("spawn")
    sides = {}
    for side in ("other", "ours"):
        pipe, end = context.Pipe()
        process = context.Process(target=worker, args=(side, threads, end), daemon=True)
        process.start()
        sides[side] = (pipe, process)

    def ask(side: str, order: tuple[str, int]) -> float:
        pipe, process = sides[side]
        pipe.send(order)
        while not pipe.poll(1):
            if not process.is_alive():
                raise SystemExit(f"bench: the {side} process ended early; its error is above")
        return float(pipe.recv())

    rows = []
    for index, work in enumerate(WORKS):
        if only not in work.name:
            continue
        cost = work.step is filtering
        for side in sides:
            ask(side, ("set up", index))
        pairs: list[tuple[float, ...]] = []
        while len(pairs) < min(runs, 3) or (
            len(pairs) < runs and sum(map(sum, pairs)) < ENOUGH_SECONDS
        ):
            pairs.append(tuple(ask(side, ("run", index)) for side in sides))
        theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [b / a if cost else a / b for a, b in pairs]
        middle = statistics.median(ratios)
        rows.append(
            {
                "work": work.name,
                "other": work.other,
                "other_seconds": theirs,
                "our_seconds": ours,
                "ratio": middle,
                "low": min(ratios),
                "high": max(ratios),
                "must": work.must,
                "aim": work.aim,
                "meets_must": middle <= work.must if cost else middle >= work.must,
                "meets_aim": middle <= work.aim if cost else middle >= work.aim,
                "runs": len(pairs),
                "threads": threads,
                "processor": name_of_processor(),
            }
        )
        print(f"{work.name}: {theirs:.3f} s, {ours:.3f} s, {middle:.2f}", flush=True)
    for pipe, process in sides.values():
        pipe.send(None)
        process.join()
    return pd.DataFrame(rows)


def figure(rows: pd.DataFrame, path: Path) -> None:
    """Ratios as bars, with their spread, and marks at must and aim."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = rows[::-1]
    fig, axes = plt.subplots(figsize=(9, 0.5 * len(shown) + 1.2), layout="constrained")
    errors = [shown["ratio"] - shown["low"], shown["high"] - shown["ratio"]]
    axes.barh(
        shown["work"], shown["ratio"], xerr=errors, color="#88aacc", label="measured, with range"
    )
    axes.plot(shown["must"], shown["work"], "|", ms=18, mew=2, color="#000000", label="must")
    axes.plot(shown["aim"], shown["work"], "|", ms=18, mew=2, color="#d55e00", label="aim")
    axes.set_xlabel("times as fast as the other side (last row: cost over DM, less is better)")
    axes.legend(frameon=False)
    fig.savefig(path, dpi=150)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmark.csv"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="", help="works whose name has this")
    args = parser.parse_args()
    rows = measure(args.threads, args.runs, args.only)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(args.out, index=False)
    figure(rows, args.out.with_suffix(".png"))
    print(rows["processor"].iloc[0])
    print(rows.drop(columns="processor").round(3).to_string(index=False))


if __name__ == "__main__":
    main()
