"""The command line: a stage a command, and verify.

Snakemake calls the stages with ``--options``, a line of JSON.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rdmdc.errors import InputError, line

OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")

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
    "summaries.table": {"scores": SOME, "csv": ONE, "markdown": ONE, "html": ONE},
    "summaries.targets_figure": {"test": ONE, "targets": SOME, **FIGURE},
    "summaries.poisons_figure": {"train": ONE, "target": ONE, "poisons": ONE, **FIGURE},
    "summaries.synthetic_figure": {"synthetic": SOME, **FIGURE},
    "summaries.accuracy_asr_figure": {"scores": SOME, **FIGURE},
    "summaries.provenance_page": {"artifacts": SOME, "html": ONE},
}
"""The function behind each command, imported when it is called, and its paths."""

LONG = {"stages.victim", "stages.poison", "stages.synthetic", "stages.scores"}
"""Commands whose state is saved so often."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 1 with a line on stderr where its input is at fault, 2 if it is misused."""
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
    check = commands.add_parser("verify", help="check results against their sidecars")
    check.set_defaults(function="verify.verify")
    check.add_argument("folder", type=_folder)
    args = parser.parse_args(argv)
    module, _, name = args.function.partition(".")
    try:
        code = getattr(import_module(f"rdmdc.{module}"), name)(args)
    except InputError as error:
        print(f"rdmdc {args.stage}: {line(error)}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # torch's own are RuntimeErrors
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        print(
            f"rdmdc {args.stage}: too little memory ({line(error)}); run fewer jobs at a time, or"
            " lower dataset.per_class, dataset.size, network or the batch sizes",
            file=sys.stderr,
        )
        return 1
    return code or 0


def _folder(name: str) -> Path:
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"{name} is not a folder; name one such as results/")
    return Path(name)


if __name__ == "__main__":
    sys.exit(main())
