"""`rdmdc audit DATA`: is my data poisoned?"""

from __future__ import annotations

import argparse
from pathlib import Path

from rdmdc.errors import ArtifactError, InputError, line

HELP = "find images of a data set that look poisoned"
DESCRIPTION = """\
Find images of a data set that look poisoned. DATA is a folder of class folders, a Parquet file (or
a folder of them), a saved Hugging Face dataset or an .npz file with images and labels. Writes
audit.parquet (a row for each image) and report.html. Exit code: 0 nothing found, 1 something found,
2 the audit could not run."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_data(command)
    command.add_argument(
        "-o", "--output", type=Path, default=Path("audit"), metavar="DIR", help="default: audit"
    )
    command.add_argument(
        "--drop",
        type=Path,
        metavar="OUT",
        help="write the data set without the flagged images into a new folder, in its own form",
    )
    command.add_argument("--seed", type=int, default=0, help="of the random networks; default: 0")
    command.set_defaults(run=run)


def add_data(command: argparse.ArgumentParser) -> None:
    """The arguments that say what is read."""
    command.add_argument("data", metavar="DATA", help="folder or file")
    command.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side that images are scaled to; default: as they are if square and at most 64, else"
        " 64 or 32",
    )
    add_columns(command)


def add_columns(command: argparse.ArgumentParser) -> None:
    """The arguments that say how it is read."""
    command.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out what cannot be read and list it, instead of stopping at the first",
    )
    command.add_argument("--image-column", metavar="NAME", help="of Parquet and saved datasets")
    command.add_argument("--label-column", metavar="NAME", help="of Parquet and saved datasets")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")


def run(args: argparse.Namespace) -> int:
    """Audit, write, print; returns the exit code that DESCRIPTION tells."""
    import sys

    try:
        return _run(args)
    except (InputError, OSError, MemoryError) as error:
        print(f"rdmdc audit: {line(error)}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from rdmdc.owndata import audit as auditing
    from rdmdc.owndata import drop, report
    from rdmdc.owndata.listings import Wanted

    if args.size is not None and (args.size < 8 or args.size % 4):
        raise InputError(f"--size {args.size}: choose a multiple of 4, at least 8")
    if args.drop is not None:
        drop.check_free(args.drop)
    wanted = Wanted(args.data, None, 0.0, args.skip_broken, args.image_column, args.label_column)
    work = args.output / ".work"
    try:
        found = auditing.audit(wanted, work, args.size, args.seed, args.device)
        auditing.save(args.output / "audit.parquet", found)
        (args.output / "report.html").write_text(report.html(found), encoding="utf-8")
        print("\n".join([*auditing.summary(found), *_measured()]))
        if args.drop is not None:
            left = drop.write(Path(args.data), found.listed, auditing.flagged(found), args.drop)
            print(f"  {args.drop}: the data set without what is flagged, {left} images")
    except PermissionError as error:
        raise ArtifactError(f"{args.output}: cannot be written ({error})") from error
    finally:
        auditing.cleared(work)
    print(f"  {args.output / 'report.html'}: the images to look at, and all scores")
    return int(found.found)


def _measured() -> list[str]:
    """How far the audit can be trusted, in lines that fit a terminal."""
    import textwrap

    from rdmdc.owndata import verdicts

    shown = textwrap.TextWrapper(88, initial_indent="  ", subsequent_indent="    ")
    return [line for text in verdicts.MEASURED for line in shown.wrap(text)]
