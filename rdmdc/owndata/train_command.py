"""`rdmdc train SET --test DATA`: a network trained on a condensed set."""

from __future__ import annotations

import argparse
from pathlib import Path

from rdmdc.owndata.audit_command import add_columns

HELP = "train a network on a condensed set and test it on real images"
DESCRIPTION = """\
Train one network on a condensed set, as the accuracies on the set's card were measured, and save
its weights. With --test it is tested on real images of the same classes: accuracy and a confusion
matrix. Without it there is no accuracy, since how well a network fits the images that it was
trained on says nothing of others."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("folder", type=Path, metavar="SET", help="what rdmdc condense wrote")
    command.add_argument(
        "--test",
        metavar="DATA",
        help="real images in any form that rdmdc audit takes; of DATA with splits its test split",
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: SET.network, beside SET"
    )
    command.add_argument("--seed", type=int, default=0, help="of the network; default: 0")
    add_columns(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, test, write and say so."""
    from rdmdc.owndata import training

    for line in training.train(args):
        print(line, flush=True)
    return 0
