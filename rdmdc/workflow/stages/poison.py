"""Craft one attack's poisons for one target."""

from __future__ import annotations

import argparse

from rdmdc.attacks.crafting import Scene
from rdmdc.progress import Progress
from rdmdc.storage import artifacts
from rdmdc.workflow.stages.job import begin, checkpoints, expect, network_of, plugin_of

PATHS = {"train": "one", "target": "one", "victims": "any", "poisons": "one", "trace": "one"}


def run(args: argparse.Namespace) -> None:
    """Craft one attack's poisons for one target."""
    provenance = begin(args, [args.train, args.target, *args.victims])
    options = args.options
    train = artifacts.load_images(args.train, expect(args, "dataset"))
    network, expected = network_of(args, train), expect(args, "dataset", "network", "seed")
    scene = Scene(
        train,
        artifacts.load_target(args.target, expect(args, "dataset"), train),
        network,
        tuple(artifacts.load_weights(path, expected, network) for path in args.victims),
        options["poisons"],
        options["seed"],
        options["device"],
    )
    attack, own = plugin_of("attack", options["attack"])
    with checkpoints(args, provenance, args.poisons) as saved:
        poisons, trace = attack(scene, own, Progress(attack.name), saved)
        artifacts.save_poisons(args.poisons, poisons, provenance)
        artifacts.save_rows(args.trace, "crafting trace", trace, provenance)
