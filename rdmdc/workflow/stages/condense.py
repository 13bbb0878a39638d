"""Condense one case and run by a panel of methods."""

from __future__ import annotations

import argparse
from dataclasses import replace

from rdmdc.condensers.task import Calibration, Task
from rdmdc.progress import Progress
from rdmdc.storage.images import load_images, load_poisons, save_synthetic
from rdmdc.storage.rows import save_rows
from rdmdc.storage.screenings import load_screening
from rdmdc.training_data import TrainingData
from rdmdc.workflow.stages.computing import checkpoints, network_of, plugin_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"train": "one", "poisons": "any", "screening": "any", "folder": "one"}


def run(args: argparse.Namespace) -> None:
    """Condense one case and run by a panel of methods; two files for each in the folder."""
    provenance = begin(args, [args.train, *args.poisons, *args.screening])
    options = args.options
    train = load_images(args.train, expect(args, "dataset"))
    expected = expect(args, "dataset", "network", "seed")
    poisons = [load_poisons(path, expected, train) for path in args.poisons]
    expected = expect(args, "dataset", "network", "seed", "case", "screen")
    screenings = [load_screening(path, expected, train) for path in args.screening]
    condenser, own = plugin_of("condenser", options["condenser"])
    methods = {
        name: None if argument is None else Calibration(*plugin_of("estimator", argument))
        for name, argument in options["estimators"].items()
    }
    task = Task(
        TrainingData(train, poisons[0] if poisons else None, screenings[0] if screenings else None),
        network_of(args, train),
        tuple(options["augmentation"]),
        methods,
        options["seed"],
        options["run"],
        options["device"],
    )
    first = args.folder / f"{next(iter(methods))}.safetensors"
    with checkpoints(args, provenance, first) as saved:
        condensed = condenser(task, own, Progress("condense"), saved)
        for method, (synthetic, trace) in condensed.items():
            kept = {key: value for key, value in options.items() if key != "estimators"}
            kept |= {"method": method, "estimator": options["estimators"][method]}
            mine = replace(provenance, options=kept)
            save_synthetic(args.folder / f"{method}.safetensors", synthetic, mine)
            save_rows(args.folder / f"{method}.trace.parquet", "trace", trace, mine)
