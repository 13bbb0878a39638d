"""The stages as commands: load the inputs, call one pure function, save what it returns.

Each takes the parsed command line; ``options`` is what rdmdc.conditions resolved for the job.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rdmdc.attacks import crafting as attacks
from rdmdc.attacks.crafting import Crafting, Scene
from rdmdc.checkpoints import Part
from rdmdc.condensers.dm import Condensation, condense
from rdmdc.datasets import decoding as datasets
from rdmdc.datasets import targets
from rdmdc.errors import InputError
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models import running as networks
from rdmdc.models.running import ConvNet, NetworkError
from rdmdc.models.training import Schedule, pretrain
from rdmdc.progress import Progress
from rdmdc.records import LabelledImages
from rdmdc.storage import artifacts
from rdmdc.storage.artifacts import Provenance
from rdmdc.storage.job_checkpoints import JobCheckpoints
from rdmdc.workflow.presets import condition_of


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
    with _checkpoints(args, provenance, args.weights) as checkpoints:
        weights = pretrain(
            train,
            _network(args, train),
            Schedule.of(args.options["pretrain"]),
            args.options["seed"],
            args.options["device"],
            Progress("pretrain"),
            checkpoints,
        )
        artifacts.save_weights(args.weights, weights, provenance)


def poison(args: argparse.Namespace) -> None:
    """Craft one attack's poisons for one target."""
    provenance = _begin(args, [args.train, args.target, *args.victims])
    options = args.options
    train = artifacts.load_images(args.train, _expect(args, "dataset"))
    network, expected = _network(args, train), _expect(args, "dataset", "network", "seed")
    scene = Scene(
        train,
        artifacts.load_target(args.target, _expect(args, "dataset"), train),
        network,
        tuple(artifacts.load_weights(path, expected, network) for path in args.victims),
        options["poisons"],
        options["seed"],
        options["device"],
    )
    crafting = None
    if "crafting" in options:
        chosen = options["crafting"]
        crafting = Crafting(**{**chosen, "augmentation": tuple(chosen["augmentation"])})
    attack = attacks.ATTACKS[options["attack"]]
    with _checkpoints(args, provenance, args.poisons) as checkpoints:
        poisons, trace = attack(scene, crafting, Progress(options["attack"]), checkpoints)
        artifacts.save_poisons(args.poisons, poisons, provenance)
        artifacts.save_rows(args.trace, "crafting trace", trace, provenance)


def synthetic(args: argparse.Namespace) -> None:
    """Condense one case and run with a panel of estimators; two files for each in the folder."""
    provenance = _begin(args, [args.train, *args.poisons])
    options = args.options
    train = artifacts.load_images(args.train, _expect(args, "dataset"))
    expected = _expect(args, "dataset", "network", "seed")
    poisons = [artifacts.load_poisons(path, expected, train) for path in args.poisons]
    first = next(iter(options["estimators"]))
    with _checkpoints(args, provenance, args.folder / f"{first}.parquet") as checkpoints:
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
            checkpoints,
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
    chosen = [artifacts.load_target(p, _expect(args, "dataset"), test) for p in args.targets]
    expected = _expect(args, "dataset", "network", "seed", "case", "run")
    sets = {name: args.folder / f"{name}.parquet" for name in options["instances"]}
    hashes = {str(path): artifacts.verified(path) for path in sets.values()}
    everything = replace(provenance, inputs={**provenance.inputs, **hashes})
    first = args.folder / f"{options['instances'][0]}.scores.parquet"
    with _checkpoints(args, everything, first) as checkpoints:
        state = checkpoints.resume()
        scored = state.facts["scored"] if state else {}
        for instance in [name for name in sets if name not in scored]:
            rows = evaluate(
                artifacts.load_synthetic(sets[instance], expected | {"instance": instance}, test),
                test,
                chosen,
                _network(args, test),
                Schedule.of(options["evaluate"]),
                options["evaluate"]["networks"],
                options["seed"],
                options["run"],
                options["device"],
                Progress(f"evaluate {instance}"),
                Part(checkpoints, state, {"scored": scored}),
            )
            state = None  # it is the first set's
            scored = {**scored, instance: rows.to_dict("records")}
        for instance, path in sets.items():
            rows = pd.DataFrame(scored[instance]).assign(
                condition=condition_of(options["case"]), run=options["run"], instance=instance
            )
            inputs = {**provenance.inputs, str(path): hashes[str(path)]}
            own = {key: value for key, value in options.items() if key != "instances"}
            mine = replace(provenance, inputs=inputs, options=own | {"instance": instance})
            artifacts.save_rows(args.folder / f"{instance}.scores.parquet", "scores", rows, mine)


def _checkpoints(args: argparse.Namespace, provenance: Provenance, output: Path) -> JobCheckpoints:
    """The job's checkpoints beside an output; only what decides the same bits resumes one."""
    identity = {
        "stage": provenance.stage,
        "options": provenance.options,
        "code": provenance.code,
        "inputs": provenance.inputs,
        **networks.arithmetic(args.options["device"]),
    }
    return JobCheckpoints(output, args.checkpoint_minutes, identity)


def _begin(args: argparse.Namespace, inputs: list[Path]) -> Provenance:
    """Set up torch as the options say, note the start and the inputs."""
    if args.options.get("device") == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no CUDA device here; set device: cpu")
    options = args.options
    if "threads" in options:
        torch.set_num_threads(options["threads"])
        width = options["network"]["width"]
        precision = options.get("precision", "float32")  # where weights are frozen
        reason = networks.compiling(options["compile"], options["device"], width, precision)
        if reason is not None:
            print(f"compile: {reason}; networks run uncompiled, much slower", file=sys.stderr)
    return Provenance.begin(args.stage, args.options, args.code, inputs)


def _expect(args: argparse.Namespace, *keys: str) -> dict[str, Any]:
    """The options that an input must have been made with, to be used in this job."""
    return {key: args.options[key] for key in keys}


def _network(args: argparse.Namespace, images: LabelledImages) -> ConvNet:
    _, channels, height, width = images.pixels.shape
    if height != width:
        raise NetworkError(f"images are {height} × {width}, not square; set dataset.size")
    return ConvNet(channels, height, len(images.class_names), **args.options["network"])
