"""Scores and sets to tables and figures, as commands."""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rdmdc.reporting import figures, lineage
from rdmdc.reporting import tables as report
from rdmdc.storage import artifacts
from rdmdc.storage.artifacts import Provenance

DPI = 200  # of PNG figures


def table(args: argparse.Namespace) -> None:
    """Scores to a table, as CSV, as Markdown and as a page."""
    provenance = _begin(args, args.scores)
    made = _table(args)
    title, note = args.options["title"], args.options["note"]
    texts = {
        args.csv: report.csv(made),
        args.markdown: report.markdown(made, title, note),
        args.html: report.html(made, title, note),
    }
    for path, text in texts.items():
        artifacts.save_bytes(path, text.encode(), provenance)


def _table(args: argparse.Namespace) -> pd.DataFrame:
    rows = pd.concat([artifacts.load_rows(path, "scores") for path in args.scores])
    return report.table(rows, args.options["rows"], args.options["reference"])


def targets_figure(args: argparse.Namespace) -> None:
    """Figure 2: the targets."""
    provenance = _begin(args, [args.test, *args.targets])
    test = artifacts.load_images(args.test)
    chosen = [artifacts.load_target(path, split=test) for path in args.targets]
    _save_figure(args, provenance, figures.targets(chosen, test.class_names))


def poisons_figure(args: argparse.Namespace) -> None:
    """Poisons beside their originals."""
    provenance = _begin(args, [args.train, args.target, args.poisons])
    train = artifacts.load_images(args.train)
    figure = figures.poisons(
        train,
        artifacts.load_poisons(args.poisons, train=train),
        artifacts.load_target(args.target, split=train),
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


def provenance_page(args: argparse.Namespace) -> None:
    """What tables and figures come from, as a page."""
    provenance = _begin(args, args.artifacts)
    text = lineage.html(lineage.lineage(args.artifacts), args.options["preset"])
    artifacts.save_bytes(args.html, text.encode(), provenance)


def _save_figure(args: argparse.Namespace, provenance: Provenance, figure: Figure) -> None:
    for form, path in (("png", args.png), ("svg", args.svg)):
        artifacts.save_bytes(path, figures.rendered(figure, form, DPI), provenance)


def _begin(args: argparse.Namespace, inputs: list[Path]) -> Provenance:
    return Provenance.begin(args.stage, args.options, args.code, inputs)
