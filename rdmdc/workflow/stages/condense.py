"""Condense one case and run by a panel of methods."""

from __future__ import annotations

import argparse
from dataclasses import replace

from rdmdc.condensers.task import Calibration, CleanCase, Task
from rdmdc.progress import Progress
from rdmdc.records import LabelledImages
from rdmdc.storage.images import load_images, load_poisons, load_synthetic, save_synthetic
from rdmdc.storage.rows import load_all_rows, save_rows
from rdmdc.storage.screenings import load_screening
from rdmdc.training_data import TrainingData
from rdmdc.workflow.stages.computing import checkpoints, network_of, plugin_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {
    "train": "one",
    "poisons": "any",
    "screening": "any",
    "clean": "any",
    "clean-screening": "any",
    "folder": "one",
}


def run(args: argparse.Namespace) -> None:
    """Condense one case and run by a panel of methods; two files for each in the folder.

    ``clean`` are the sets and traces of the same methods in the clean case, if that helps.
    """
    read = [args.train, *args.poisons, *args.screening, *args.clean, *args.clean_screening]
    provenance = begin(args, read)
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
    data = TrainingData(
        train, poisons[0] if poisons else None, screenings[0] if screenings else None
    )
    task = Task(
        data,
        network_of(args, train),
        tuple(options["augmentation"]),
        methods,
        options["seed"],
        options["run"],
        options["device"],
        _clean_case(args, train, data),
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


def _clean_case(
    args: argparse.Namespace, train: LabelledImages, data: TrainingData
) -> CleanCase | None:
    """What the methods came to in the clean case, from its files; None where none are given."""
    if not args.clean:
        return None
    sets = {
        path.name.partition(".")[0]: path for path in args.clean if path.suffix == ".safetensors"
    }
    traces = [path.with_suffix(".trace.parquet") for path in sets.values()]
    expected = {k: v for k, v in args.options.items() if k not in ("case", "estimators")}
    rows = load_all_rows(traces, "trace", expected)
    condensed = {}
    for (method, path), trace in zip(sets.items(), rows, strict=True):
        estimator = {"method": method, "estimator": args.options["estimators"][method]}
        condensed[method] = (load_synthetic(path, expected | estimator, train), trace)
    expected = expect(args, "dataset", "network", "seed", "screen")
    screenings = [load_screening(path, expected, train) for path in args.clean_screening]
    clean = TrainingData(train, None, screenings[0] if screenings else None)
    return CleanCase(data.same_classes(clean), condensed)
