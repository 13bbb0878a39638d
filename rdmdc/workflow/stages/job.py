"""What all stages share: recording a job's start, and the options that its inputs must have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from rdmdc.errors import InputError
from rdmdc.storage.provenance import Provenance

Expected = dict[str, Any]


def begin(args: argparse.Namespace, inputs: list[Path]) -> Provenance:
    """Note the start of a job and hash its inputs."""
    if args.options.get("device") == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no CUDA device here; set device: cpu")
    if "threads" in args.options:
        torch.set_num_threads(args.options["threads"])
    return Provenance.begin(args.stage, args.options, args.code, inputs)


def expect(args: argparse.Namespace, *keys: str) -> Expected:
    """The options that an input must have been made with, to be used in this job."""
    return {key: args.options[key] for key in keys}
