"""`rdmdc verify-set SET --key public.pem`."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "check the signature of a condensed set"
DESCRIPTION = """\
Check that a condensed set is what the owner of a key signed: exit code 1, with the reason, where a
file was changed, added or removed, or the signature is another's."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("folder", type=Path, metavar="SET")
    command.add_argument("--key", type=Path, required=True, help="public key in PEM")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and say so."""
    from rdmdc.owndata import signing

    signing.verify(args.folder, args.key)
    print(f"{args.folder}: as it was signed by the owner of {args.key}")
    return 0
