"""`rdmdc export SET --to FORM -o OUT`: a condensed set in a form that others ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a condensed set as a folder of classes or .npz, or push it to the Hugging Face hub"
DESCRIPTION = """\
Write a condensed set in another form. folder: a folder of class folders with PNG files. npz: one
file with the 8-bit images, the exact values and the labels. huggingface: push all files of SET to
the data set OUT, written OWNER/NAME, of the Hugging Face hub, in one commit; log in by
`hf auth login` or set HF_TOKEN. Nothing is overwritten, unless --replace says so."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("folder", type=Path, metavar="SET", help="what rdmdc condense wrote")
    command.add_argument("--to", required=True, choices=("huggingface", "folder", "npz"))
    command.add_argument("-o", "--output", required=True, metavar="OUT")
    command.add_argument(
        "--replace",
        action="store_true",
        help="replace the file that is there; on the hub all files of the data set, its card too",
    )
    command.add_argument(
        "--public", action="store_true", help="of a new data set on the hub; default: private"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and say where to."""
    from rdmdc.owndata import exporting

    print(exporting.export(args))
    return 0
