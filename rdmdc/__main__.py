"""The command line: a stage a command. Snakemake calls it with ``--options``, a line of JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rdmdc.errors import InputError

Paths = dict[str, dict[str, Any]]
ONE: dict[str, Any] = {"required": True}
SOME: dict[str, Any] = {"nargs": "+", "required": True}
ANY: dict[str, Any] = {"nargs": "*", "default": []}
FIGURE: Paths = {"png": ONE, "svg": ONE}

COMMANDS: dict[str, Paths] = {
    "stages.data": {"train": ONE, "test": ONE},
    "stages.target": {"test": ONE, "target": ONE},
    "stages.victim": {"train": ONE, "weights": ONE},
    "stages.poison": {"train": ONE, "target": ONE, "victims": ANY, "poisons": ONE, "trace": ONE},
    "stages.synthetic": {"train": ONE, "poisons": ANY, "folder": ONE},
    "stages.scores": {"test": ONE, "targets": SOME, "folder": ONE},
    "summaries.table": {"scores": SOME, "csv": ONE, "markdown": ONE},
    "summaries.targets_figure": {"test": ONE, "targets": SOME, **FIGURE},
    "summaries.poisons_figure": {"train": ONE, "target": ONE, "poisons": ONE, **FIGURE},
    "summaries.synthetic_figure": {"synthetic": SOME, **FIGURE},
    "summaries.accuracy_asr_figure": {"scores": SOME, **FIGURE},
}
"""The function behind each command, imported when it is called, and its paths."""

LONG = {"stages.victim", "stages.poison", "stages.synthetic", "stages.scores"}
"""Commands whose state is saved so often."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 1 with a line on stderr where its input is at fault."""
    parser = argparse.ArgumentParser(prog="rdmdc", description=__doc__)
    commands = parser.add_subparsers(dest="stage", required=True)
    for function, paths in COMMANDS.items():
        name = function.partition(".")[2]
        command = commands.add_parser(name.replace("_", "-"))
        command.set_defaults(function=function)
        command.add_argument("--options", type=json.loads, required=True, help="JSON")
        command.add_argument("--code", default="", help="digest of the code, for the provenance")
        if function in LONG:
            command.add_argument("--checkpoint-minutes", type=float, required=True)
        for path, number in paths.items():
            command.add_argument(f"--{path}", type=Path, metavar="PATH", **number)
    args = parser.parse_args(argv)
    module, _, name = args.function.partition(".")
    try:
        getattr(import_module(f"rdmdc.{module}"), name)(args)
    except InputError as error:
        line = " ".join(str(error).splitlines())  # Arrow's messages have several
        print(f"rdmdc {args.stage}: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
