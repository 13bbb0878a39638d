"""Craft one attack's poisons for one target."""

from __future__ import annotations

import argparse

from rdmdc.attacks.crafting import Scene
from rdmdc.progress import Progress
from rdmdc.storage.images import load_images, load_target, save_poisons
from rdmdc.storage.rows import save_rows
from rdmdc.storage.weights import load_weights
from rdmdc.workflow.stages.computing import checkpoints, network_of, plugin_of
from rdmdc.workflow.stages.job import begin, expect

PATHS = {"train": "one", "target": "one", "victims": "any", "poisons": "one", "trace": "one"}


def run(args: argparse.Namespace) -> None:
    """Craft one attack's poisons for one target."""
    provenance = begin(args, [args.train, args.target, *args.victims])
    options = args.options
    train = load_images(args.train, expect(args, "dataset"))
    network, expected = network_of(args, train), expect(args, "dataset", "network", "seed")
    scene = Scene(
        train,
        load_target(args.target, expect(args, "dataset"), train),
        network,
        tuple(load_weights(path, expected, network) for path in args.victims),
        options["poisons"],
        options["seed"],
        options["device"],
    )
    attack, own = plugin_of("attack", options["attack"])
    with checkpoints(args, provenance, args.poisons) as saved:
        poisons, trace = attack(scene, own, Progress(attack.name), saved)
        save_poisons(args.poisons, poisons, provenance)
        save_rows(args.trace, "crafting trace", trace, provenance)
