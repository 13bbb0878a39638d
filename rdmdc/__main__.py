"""The command line: a stage a command, the only place that maps files to functions.

Snakemake calls it; ``--options`` is the JSON that rdmdc.conditions makes of a preset.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rdmdc import artifacts, attacks, datasets, figures, report, targets
from rdmdc.artifacts import ArtifactError, Provenance
from rdmdc.attacks import Crafting, Scene
from rdmdc.condense import Condensation, condense
from rdmdc.datasets import DatasetError
from rdmdc.evaluate import evaluate
from rdmdc.figures import FigureError
from rdmdc.networks import ConvNet, NetworkError
from rdmdc.progress import Progress
from rdmdc.rates import RateError
from rdmdc.records import LabelledImages, RecordError
from rdmdc.report import ReportError
from rdmdc.training import Schedule, pretrain

EXPECTED = (
    ArtifactError,
    DatasetError,
    FigureError,
    NetworkError,
    RateError,
    RecordError,
    ReportError,
)
"""Faults of input: they are told in a line, without a traceback."""

DPI = 200  # of PNG figures


def data(args: argparse.Namespace) -> None:
    """Decode the data set once into class-sorted, memory-mapped arrays."""
    sources = [args.options["dataset"].get(part) or [] for part in ("train", "test")]
    files = [Path(p) for s in sources for p in ([s] if isinstance(s, str) else s)]
    provenance = _begin(args, [p for p in files if p.is_file()])
    train, test = datasets.load(args.options["dataset"])
    artifacts.save_images(args.train, train, provenance)
    artifacts.save_images(args.test, test, provenance)


def target(args: argparse.Namespace) -> None:
    """Draw, or look up, one target in the test split."""
    provenance = _begin(args, [args.test])
    test = artifacts.load_images(args.test, _expect(args, "dataset"))
    wanted = args.options["target"]
    chosen = targets.draw(test, **wanted) if len(wanted) == 1 else targets.listed(test, **wanted)
    artifacts.save_target(args.target, chosen, provenance)


def victim(args: argparse.Namespace) -> None:
    """Pretrain one victim for gradient matching."""
    provenance = _begin(args, [args.train])
    train = artifacts.load_images(args.train, _expect(args, "dataset"))
    weights = pretrain(
        train,
        _network(args, train),
        Schedule.of(args.options["pretrain"]),
        args.options["seed"],
        args.options["device"],
        Progress("pretrain"),
    )
    artifacts.save_weights(args.weights, weights, provenance)


def poison(args: argparse.Namespace) -> None:
    """Craft one attack's poisons for one target."""
    provenance = _begin(args, [args.train, args.target, *args.victims])
    options = args.options
    train = artifacts.load_images(args.train, _expect(args, "dataset"))
    expected = _expect(args, "dataset", "network", "seed")
    scene = Scene(
        train,
        artifacts.load_target(args.target, _expect(args, "dataset")),
        _network(args, train),
        tuple(artifacts.load_weights(path, expected) for path in args.victims),
        options["poisons"],
        options["seed"],
        options["device"],
    )
    crafting = None
    if "crafting" in options:
        chosen = options["crafting"]
        crafting = Crafting(**{**chosen, "augmentation": tuple(chosen["augmentation"])})
    attack = attacks.ATTACKS[options["attack"]]
    poisons, trace = attack(scene, crafting, Progress(options["attack"]))
    artifacts.save_poisons(args.poisons, poisons, provenance)
    artifacts.save_rows(args.trace, "crafting trace", trace, provenance)


def synthetic(args: argparse.Namespace) -> None:
    """Condense one case and run with a panel of estimators; two files for each in the folder."""
    provenance = _begin(args, [args.train, *args.poisons])
    options = args.options
    train = artifacts.load_images(args.train, _expect(args, "dataset"))
    expected = _expect(args, "dataset", "network", "seed")
    poisons = [artifacts.load_poisons(path, expected) for path in args.poisons]
    condensed = condense(
        train,
        poisons[0] if poisons else None,
        _network(args, train),
        options["augmentation"],
        Condensation(**options["condense"]),
        options["estimators"],
        options["seed"],
        options["run"],
        options["device"],
        Progress("condense"),
    )
    for instance, (made, trace) in condensed.items():
        own = {key: value for key, value in options.items() if key != "estimators"}
        own |= {"instance": instance, "estimator": options["estimators"][instance]}
        mine = replace(provenance, options=own)
        artifacts.save_synthetic(args.folder / f"{instance}.parquet", made, mine)
        artifacts.save_rows(args.folder / f"{instance}.trace.parquet", "trace", trace, mine)


def scores(args: argparse.Namespace) -> None:
    """Train networks on each synthetic set of a panel in the folder and score them."""
    options = args.options
    provenance = _begin(args, [args.test, *args.targets])
    test = artifacts.load_images(args.test, _expect(args, "dataset"))
    chosen = [artifacts.load_target(path, _expect(args, "dataset")) for path in args.targets]
    expected = _expect(args, "dataset", "network", "seed", "case", "run")
    for instance in options["instances"]:
        path = args.folder / f"{instance}.parquet"
        rows = evaluate(
            artifacts.load_synthetic(path, expected | {"instance": instance}),
            test,
            chosen,
            _network(args, test),
            Schedule.of(options["evaluate"]),
            options["evaluate"]["networks"],
            options["seed"],
            options["run"],
            options["device"],
            Progress(f"evaluate {instance}"),
        )
        condition = options["case"].split("/")[0]
        rows = rows.assign(condition=condition, run=options["run"], instance=instance)
        inputs = {**provenance.inputs, str(path): artifacts.sha256(path)}
        own = {key: value for key, value in options.items() if key != "instances"}
        mine = replace(provenance, inputs=inputs, options=own | {"instance": instance})
        artifacts.save_rows(args.folder / f"{instance}.scores.parquet", "scores", rows, mine)


def table(args: argparse.Namespace) -> None:
    """Scores to a table, as CSV and as Markdown."""
    provenance = _begin(args, args.scores)
    made = _table(args)
    texts = {
        args.csv: report.csv(made),
        args.markdown: report.markdown(made, args.options["title"], args.options["note"]),
    }
    for path, text in texts.items():
        artifacts.save_bytes(path, text.encode(), provenance)


def _table(args: argparse.Namespace) -> pd.DataFrame:
    rows = pd.concat([artifacts.load_rows(path, "scores") for path in args.scores])
    return report.table(rows, args.options["rows"], args.options["reference"])


def targets_figure(args: argparse.Namespace) -> None:
    """Figure 2: the targets."""
    provenance = _begin(args, [args.test, *args.targets])
    names = artifacts.load_images(args.test).class_names
    chosen = [artifacts.load_target(path) for path in args.targets]
    _save_figure(args, provenance, figures.targets(chosen, names))


def poisons_figure(args: argparse.Namespace) -> None:
    """Poisons beside their originals."""
    provenance = _begin(args, [args.train, args.target, args.poisons])
    figure = figures.poisons(
        artifacts.load_images(args.train),
        artifacts.load_poisons(args.poisons),
        artifacts.load_target(args.target),
        args.options["eps"],
    )
    _save_figure(args, provenance, figure)


def synthetic_figure(args: argparse.Namespace) -> None:
    """The condensed sets of several estimators beside each other."""
    provenance = _begin(args, args.synthetic)
    sets = zip(args.options["labels"], args.synthetic, strict=True)
    loaded = {label: artifacts.load_synthetic(path) for label, path in sets}
    _save_figure(args, provenance, figures.synthetic(loaded))


def accuracy_asr_figure(args: argparse.Namespace) -> None:
    """Accuracy against ASR of a table's rows."""
    provenance = _begin(args, args.scores)
    _save_figure(args, provenance, figures.accuracy_asr(_table(args)))


def _save_figure(args: argparse.Namespace, provenance: Provenance, figure: Any) -> None:
    for form, path in (("png", args.png), ("svg", args.svg)):
        artifacts.save_bytes(path, figures.rendered(figure, form, DPI), provenance)


def _begin(args: argparse.Namespace, inputs: Sequence[Path]) -> Provenance:
    torch.set_num_threads(args.options.get("threads", 1))
    return Provenance.begin(args.stage, args.options, args.code, inputs)


def _expect(args: argparse.Namespace, *keys: str) -> dict[str, Any]:
    """The options that an input must have been made with, to be used in this job."""
    return {key: args.options[key] for key in keys}


def _network(args: argparse.Namespace, images: LabelledImages) -> ConvNet:
    _, channels, height, width = images.pixels.shape
    if height != width:
        raise NetworkError(f"images are {height} × {width}, not square; set dataset.size")
    return ConvNet(channels, height, len(images.class_names), **args.options["network"])


Stage = Callable[[argparse.Namespace], None]
STAGES: dict[Stage, dict[str, str]] = {
    data: {"train": "1", "test": "1"},
    target: {"test": "1", "target": "1"},
    victim: {"train": "1", "weights": "1"},
    poison: {"train": "1", "target": "1", "victims": "*", "poisons": "1", "trace": "1"},
    synthetic: {"train": "1", "poisons": "*", "folder": "1"},
    scores: {"test": "1", "targets": "*", "folder": "1"},
    table: {"scores": "*", "csv": "1", "markdown": "1"},
    targets_figure: {"test": "1", "targets": "*", "png": "1", "svg": "1"},
    poisons_figure: {"train": "1", "target": "1", "poisons": "1", "png": "1", "svg": "1"},
    synthetic_figure: {"synthetic": "*", "png": "1", "svg": "1"},
    accuracy_asr_figure: {"scores": "*", "png": "1", "svg": "1"},
}
"""Each stage's paths: one, or any number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; the exit code is 1 with a line on stderr where its input is at fault."""
    parser = argparse.ArgumentParser(prog="rdmdc", description=__doc__)
    commands = parser.add_subparsers(dest="stage", required=True)
    for stage, paths in STAGES.items():
        command = commands.add_parser(
            stage.__name__.replace("_", "-"), help=stage.__doc__, description=stage.__doc__
        )
        command.set_defaults(run=stage)
        command.add_argument("--options", type=json.loads, required=True, help="JSON")
        command.add_argument("--code", default="", help="digest of the code, for the provenance")
        for name, number in paths.items():
            many: dict[str, Any] = {"nargs": "*", "default": []}
            one: dict[str, Any] = {"required": True}
            command.add_argument(
                f"--{name}", type=Path, metavar="PATH", **(many if number == "*" else one)
            )
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except EXPECTED as error:
        print(f"rdmdc {args.stage}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
