"""Train networks on each condensed set of a panel and score them."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd

from rdmdc.checkpoints import Part
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models import running
from rdmdc.models.training import Schedule
from rdmdc.options import build
from rdmdc.progress import Progress
from rdmdc.storage.images import load_images, load_synthetic, load_target
from rdmdc.storage.provenance import verified
from rdmdc.storage.rows import save_rows
from rdmdc.workflow.stages.computing import checkpoints, network_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"test": "one", "targets": "any", "folder": "one"}


def run(args: argparse.Namespace) -> None:
    """Train networks on each condensed set of a panel in the folder and score them."""
    options = args.options
    provenance = begin(args, [args.test, *args.targets])
    test = load_images(args.test, expect(args, "dataset"))
    chosen = [load_target(p, expect(args, "dataset"), test) for p in args.targets]
    expected = expect(args, "dataset", "seed", "case", "run")
    schedule = build(Schedule, options["evaluate"], "evaluate")
    sets = {name: args.folder / f"{name}.safetensors" for name in options["methods"]}
    hashes = {str(path): verified(path) for path in sets.values()}
    everything = replace(provenance, inputs={**provenance.inputs, **hashes})
    networks, compiled = {}, {}
    for name, wanted in options["networks"].items():
        networks[name] = network_of(args, test, wanted["network"])
        compiled[name] = running.compiled()
    work = [(method, name) for method in sets for name in networks]
    first = args.folder / f"{options['methods'][0]}.scores.parquet"
    with checkpoints(args, everything, first, compiled=compiled) as saved:
        state = saved.resume()
        scored = list(state.facts["scored"]) if state else []
        for method, name in work[len(scored) :]:
            running.compiling(compiled[name], options["device"], networks[name])
            rows = evaluate(
                load_synthetic(sets[method], expected | {"method": method}, test),
                test,
                chosen,
                networks[name],
                schedule,
                options["networks"][name]["trained"],
                options["seed"],
                options["run"],
                options["device"],
                Progress(f"evaluate {method} by {name}"),
                Part(saved, state, {"scored": scored}),
            )
            state = None  # it is the state of the first that was not done
            scored = [*scored, rows.to_dict("records")]
        for method, path in sets.items():
            parts = [
                pd.DataFrame(rows).assign(architecture=name)
                for (of, name), rows in zip(work, scored, strict=True)
                if of == method
            ]
            rows = pd.concat(parts, ignore_index=True).assign(
                condition=options["case"].partition("/")[0], run=options["run"], method=method
            )
            inputs = {**provenance.inputs, str(path): hashes[str(path)]}
            kept = {key: value for key, value in options.items() if key != "methods"}
            mine = replace(provenance, inputs=inputs, options=kept | {"method": method})
            save_rows(args.folder / f"{method}.scores.parquet", "scores", rows, mine)
