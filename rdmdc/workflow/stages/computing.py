"""What the long stages share: plug-ins and networks from options, checkpoints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdmdc import plugins
from rdmdc.models import running
from rdmdc.models.network import Network, NetworkError
from rdmdc.options import build
from rdmdc.records import LabelledImages
from rdmdc.storage.job_checkpoints import JobCheckpoints
from rdmdc.storage.provenance import Provenance


def plugin_of(kind: str, argument: Mapping[str, Any]) -> tuple[plugins.Plugin, Any]:
    """The plug-in that a job's options name, and its own options as its record."""
    values = dict(argument)
    name = values.pop("use")
    plugin = plugins.get(kind, name, f"{kind}")
    return plugin, build(plugin.options, values, f"{kind} {name}")


def network_of(
    args: argparse.Namespace, images: LabelledImages, argument: Mapping[str, Any] | None = None
) -> Network:
    """The network of the job's options, or another, at the images' size; it runs as they say.

    Says so on stderr where its kernels cannot be compiled, and what a precision other than float32
    means on this processor. Raises NetworkError where the network
    does not fit the images.
    """
    options = args.options
    _, channels, height, width = images.pixels.shape
    if height != width:
        raise NetworkError(f"images are {height} × {width}, not square; set dataset.size")
    family, own = plugin_of("network", argument or options["network"])
    network: Network = family(channels, height, len(images.class_names), own)
    precision = options.get("precision", "float32")  # where weights are frozen
    reason = running.compiling(options["compile"], options["device"], network, precision)
    if reason is not None:
        print(f"compile: {reason}; networks run uncompiled, much slower", file=sys.stderr)
    elif precision != "float32":
        products = running.arithmetic(options["device"])["products"]
        print(
            f"precision {precision}: products with frozen weights are {products}", file=sys.stderr
        )
    return network


def checkpoints(
    args: argparse.Namespace, provenance: Provenance, output: Path, **more: Any
) -> JobCheckpoints:
    """The job's checkpoints beside an output; only what decides the same bits resumes one.

    Call it when the job's networks are made, since how they run is part of that; ``more`` is what
    else is.
    """
    identity = {
        "stage": provenance.stage,
        "options": provenance.options,
        "code": provenance.code,
        "inputs": provenance.inputs,
        **running.arithmetic(args.options["device"]),
        **more,
    }
    return JobCheckpoints(output, args.checkpoint_minutes, identity)
