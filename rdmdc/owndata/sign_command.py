"""`rdmdc sign SET --key private.pem`."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "sign a condensed set by a key"
DESCRIPTION = """\
Sign every file of a condensed set by a private elliptic-curve key, into SET/set.sig. A pair of
keys: openssl ecparam -name prime256v1 -genkey -noout -out private.pem;
openssl ec -in private.pem -pubout -out public.pem"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("folder", type=Path, metavar="SET")
    command.add_argument("--key", type=Path, required=True, help="private key in PEM")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sign and say where the signature is."""
    from rdmdc.owndata import signing

    print(f"{signing.sign(args.folder, args.key)}: the signature; hand your public key on as well")
    return 0
