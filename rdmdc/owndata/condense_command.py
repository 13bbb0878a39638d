"""`rdmdc condense DATA --ipc 10 -o SET`: from data to a small set that others can train on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rdmdc.owndata.audit_command import add_data

HELP = "audit a data set and condense it to a few images per class"
DESCRIPTION = """\
Audit a data set, leave out what looks poisoned, and condense the rest to a few synthetic images per
class, in a folder that others can use. DATA is what `rdmdc audit` takes. What takes long is kept in
SET.work: a second call computes only what changed, and one that was interrupted goes on. The
audit's report, which shows images of DATA, is there too and not in SET."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_data(command)
    command.add_argument("--ipc", type=_positive, required=True, help="synthetic images per class")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="SET")
    command.add_argument(
        "--test",
        metavar="DATA",
        help="test split; default: the data's own, else a tenth of each class is held out",
    )
    command.add_argument(
        "--method",
        default="audited_dm",
        choices=("audited_dm", "dm", "rdm_dc", "contrastive_dm", "screened_dm"),
        help="default: audited_dm, which drops what the audit flags; rdm_dc is the paper's",
    )
    command.add_argument(
        "--poison-rate",
        default="1/10",
        metavar="RATE",
        help="share of a class that may be poisoned, for the methods that must be told; default:"
        " 1/10",
    )
    command.add_argument("--iterations", type=_positive, default=200, help="default: 200")
    command.add_argument(
        "--width", type=_positive, default=32, help="channels of the ConvNet; default: 32"
    )
    command.add_argument("--seed", type=int, default=0, help="default: 0")
    command.add_argument("--cores", type=_positive, help="default: all")
    command.add_argument("--name", help="of the data set on its card; default: SET's name")
    command.add_argument("--license", default="unknown", help="of the set, for its card")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Condense; 130 after Ctrl-C, and the next call goes on."""
    from rdmdc.owndata import condensing

    try:
        condensing.condense(args)
    except KeyboardInterrupt:
        print("rdmdc condense: interrupted; call it again to go on", file=sys.stderr)
        return 130
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
