"""Command-line interface: what people call, and one subcommand of ``stage`` per pipeline stage.

Snakemake calls ``rdmdc stage NAME`` with ``--options``, a line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from rdmdc.errors import InputError, line

OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")

STAGES = {
    "data": "decode the data set into class-sorted arrays",
    "target": "draw a target",
    "victim": "pretrain a network on clean data",
    "poison": "craft an attack's poisons for a target",
    "screen": "score every training image and leave some out",
    "condense": "condense a training set by a panel of methods",
    "evaluate": "train networks on condensed sets and score them",
    "table": "scores to a table",
    "targets-figure": "draw the targets",
    "poisons-figure": "draw poisons beside their originals",
    "synthetic-figure": "draw condensed sets",
    "accuracy-asr-figure": "draw accuracy against attack success rate",
    "matrix-figure": "draw attacks against methods as a heat map",
    "provenance-page": "list what tables and figures come from",
}
"""The stages, each a module of rdmdc.workflow.stages that is imported when it is called."""

OWN_DATA = {
    "audit": "audit_command",
    "condense": "condense_command",
    "train": "train_command",
    "export": "export_command",
    "sign": "sign_command",
    "verify-set": "verify_set_command",
}
"""Commands for people with a data set, and their modules in rdmdc.owndata."""

LONG = {"victim", "poison", "screen", "condense", "evaluate"}
"""Stages that save checkpoints."""

NUMBERS: dict[str, dict[str, Any]] = {
    "one": {"required": True},
    "some": {"nargs": "+", "required": True},
    "any": {"nargs": "*", "default": []},
}
"""How many paths an argument takes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 1 with a line on stderr where its input is at fault, 2 if it is misused."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="rdmdc", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in OWN_DATA.items():
        _add_own(commands, name, module)
    check = commands.add_parser("verify", help="check results against their sidecars")
    check.add_argument("folder", type=_folder)
    check.set_defaults(run=_verify)
    listing = commands.add_parser("plugins", help="list every kind of plug-in, one line each")
    listing.set_defaults(run=_plugins)
    _add_stages(commands, words)
    args = parser.parse_args(words)
    called = " ".join(["rdmdc", args.command, *([args.stage] if args.command == "stage" else [])])
    try:
        code = args.run(args)
    except InputError as error:
        print(f"{called}: {line(error)}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # torch's own are RuntimeErrors
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        print(
            f"{called}: too little memory ({line(error)}); run fewer jobs at a time, or"
            " lower dataset.per_class, dataset.size, the networks' width or the batch sizes",
            file=sys.stderr,
        )
        return 1
    return code or 0


def _add_own(commands: Any, name: str, module: str) -> None:
    """Add a command for people with a data set; its module is cheap to import."""
    command = import_module(f"rdmdc.owndata.{module}")
    parser = commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
    command.add_arguments(parser)


def _add_stages(commands: Any, words: Sequence[str]) -> None:
    """Add ``stage`` with a subcommand for each stage, and the arguments of the one called."""
    text = "run one stage of the workflow, as Snakemake does"
    stages = commands.add_parser("stage", help=text, description=text).add_subparsers(
        dest="stage", required=True, metavar="STAGE"
    )
    for name, text in STAGES.items():
        command = stages.add_parser(name, help=text, description=text)
        if words[:2] == ["stage", name]:  # importing all of them would cost every job seconds
            _add_arguments(command, name)


def _add_arguments(command: argparse.ArgumentParser, stage: str) -> None:
    with _uncollected():
        module = import_module(f"rdmdc.workflow.stages.{stage.replace('-', '_')}")
    command.add_argument("--options", type=json.loads, required=True, help="JSON")
    command.add_argument("--code", default="", help="digest of the code, for the provenance")
    if stage in LONG:
        command.add_argument("--checkpoint-minutes", type=float, required=True)
    for path, number in module.PATHS.items():
        command.add_argument(f"--{path}", type=Path, metavar="PATH", **NUMBERS[number])
    command.set_defaults(run=module.run)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Within this context no garbage is collected: of what torch defines while it is imported none
    is, and looking through it again and again takes two fifths of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor need it be looked through later
        if collecting:
            gc.enable()


def _verify(args: argparse.Namespace) -> int:
    from rdmdc.storage.verify import verify

    return verify(args)


def _plugins(args: argparse.Namespace) -> int:
    """Print every plug-in of every kind; 1 where one of another package cannot be imported."""
    from rdmdc import plugins
    from rdmdc.workflow.planning import lazily

    code = 0
    with lazily("torch", "pandas", "scipy"):
        for kind, section in plugins.KINDS.items():
            found = plugins.load(kind)
            print(section)
            for name, plugin in sorted(found.plugins.items()):
                package = plugin.module.partition(".")[0]
                origin = "" if package == "rdmdc" else f" [{package}]"
                print(f"  {name}{origin}: {plugin.summary}")
            for name, reason in found.broken.items():
                print(f"  {name}: cannot be imported: {reason}")
                code = 1
    return code


def _folder(name: str) -> Path:
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"{name} is not a folder; name one such as results/")
    return Path(name)


if __name__ == "__main__":
    sys.exit(main())
