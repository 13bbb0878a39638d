"""From a data set to a condensed one: survey, preset, workflow, audit, and the folder to share."""

from __future__ import annotations

import argparse
import os
import sys
from fractions import Fraction
from pathlib import Path
from shlex import quote
from statistics import mean

import yaml

from rdmdc.datasets import image_list
from rdmdc.errors import InputError
from rdmdc.owndata import audit as auditing
from rdmdc.owndata import choices, opening, publishing, report, running
from rdmdc.owndata.audit import Audit
from rdmdc.owndata.listings import Wanted
from rdmdc.owndata.survey import Survey, survey
from rdmdc.storage.images import load_images
from rdmdc.storage.screenings import load_screening

HELD_OUT = 0.1
RESULTS = Path("results/own")
PREAMBLE = """\
# Made by rdmdc condense. To go on from its results:
#   cd {work}
#   rdmdc_snakefile=$(python -c "from rdmdc.owndata.running import snakefile as f; print(f())")
#   snakemake --snakefile "$rdmdc_snakefile" --configfile ../{out}/preset.yaml --cores 2
# The images are listed in that folder; where it is gone, call rdmdc condense again.
"""
SCREENING = RESULTS / "own/screens" / f"{choices.AUDIT}.parquet"


def condense(args: argparse.Namespace) -> None:
    """Make the folder ``args.output``; raises an InputError that says what to do."""
    request = _request(args)
    out, work = args.output, args.output.with_name(f"{args.output.name}.work")
    publishing.check_free(out)
    wanted = Wanted(
        args.data, args.test, HELD_OUT, args.skip_broken, args.image_column, args.label_column
    )
    found = survey(wanted, work / choices.IMAGES)
    chosen = choices.choices(found, request)
    print("\n".join(choices.told(found, request, chosen)), flush=True)
    preset = choices.preset(found, request, chosen)
    out.mkdir(parents=True, exist_ok=True)
    path, text = out / opening.PRESET, yaml.safe_dump(preset, sort_keys=False, allow_unicode=True)
    _write(path, PREAMBLE.format(work=quote(work.name), out=quote(out.name)) + text)
    running.run(path, work, args.cores or os.cpu_count() or 1, ["all", str(SCREENING)])
    audited = _audited(args.data, found, work)
    made = publishing.Made(
        name=args.name or out.name,
        licence=args.license,
        preset=preset,
        method=request.method,
        folder=work / RESULTS / "own/run=0",
        test=work / RESULTS / "data/test.safetensors",
    )
    measured = publishing.publish(out, made, audited, work)
    print("\n".join(auditing.summary(audited)))
    accuracies = [f"{mean(values):.1%} with {name} values" for name, values in measured.items()]
    print(
        f"accuracy: {', '.join(accuracies)} (mean of {len(measured['exact'])} networks each, on"
        f" {sum(found.test)} real images: {found.test_from})"
    )
    print(f"{out}: the condensed set; start with {out / 'README.md'}")
    print(f"{work / 'audit/report.html'}: the audit, with images of the data: not for others")
    print(f"{work}: what a further call goes on from", file=sys.stderr)


def _request(args: argparse.Namespace) -> choices.Request:
    try:
        rate = Fraction(args.poison_rate)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"--poison-rate {args.poison_rate}: write a fraction like 1/10") from error
    if not 0 < rate < Fraction(1, 3):
        raise InputError(f"--poison-rate {args.poison_rate}: choose more than 0, less than 1/3")
    if args.size is not None and (args.size < 8 or args.size % 4):
        raise InputError(f"--size {args.size}: choose a multiple of 4, at least 8")
    return choices.Request(
        args.ipc,
        args.method,
        args.iterations,
        args.width,
        args.size,
        str(rate),
        args.device,
        args.seed,
    )


def _audited(data: str, found: Survey, work: Path) -> Audit:
    """The audit that the workflow's screening amounts to, with its report."""
    images = load_images(work / RESULTS / "data/train.safetensors")
    screening = load_screening(work / SCREENING, train=images)
    listed = image_list.load(work / choices.IMAGES)
    audited = auditing.of(data, found, listed, images, screening)
    (work / "audit").mkdir(exist_ok=True)
    auditing.save(work / "audit/audit.parquet", audited)
    (work / "audit/report.html").write_text(report.html(audited), encoding="utf-8")
    return audited


def _write(path: Path, text: str) -> None:
    """Write a text unless it is there already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
