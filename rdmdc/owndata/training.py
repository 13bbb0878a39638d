"""Training a network on a condensed set, and testing it on real images."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch

from rdmdc.checkpoints import NoCheckpoints
from rdmdc.errors import InputError
from rdmdc.metrics.evaluate import predicted
from rdmdc.models import running
from rdmdc.models.network import Weights
from rdmdc.models.training import fit
from rdmdc.owndata import confusion, opening, testing
from rdmdc.owndata.audit import left_out
from rdmdc.owndata.opening import Evaluation
from rdmdc.progress import Progress
from rdmdc.records import SyntheticSet

WEIGHTS = "weights.safetensors"


def train(args: argparse.Namespace) -> Iterator[str]:
    """Train on ``args.folder``, test on ``args.test``, write ``args.output``; yields what to print.

    Raises an InputError that says what to do.
    """
    made = opening.opened(args.folder)
    evaluation = opening.evaluation(args.folder, made)
    out = args.output or args.folder.resolve().with_name(f"{args.folder.resolve().name}.network")
    check_free(out)
    with tempfile.TemporaryDirectory() as work:
        test = None
        if args.test is not None:
            columns = args.image_column, args.label_column
            test, seen = testing.real(args.test, made, args.skip_broken, columns, Path(work))
            yield from left_out(seen)
        weights = trained(made, evaluation, args.seed, args.device)
        out.mkdir(parents=True, exist_ok=True)
        save(out / WEIGHTS, weights, made, evaluation)
        if test is None:
            yield "no accuracy: name real images of the same classes by --test"
        else:
            labels = predicted(evaluation.network, weights, test, args.device)
            matrix = confusion.matrix(test.labels, labels, len(made.class_names))
            yield from confusion.told(matrix, made.class_names)
            confusion.write(out, matrix, made.class_names)
            yield f"{out / confusion.TABLE}, {out / confusion.FIGURE}: the confusion matrix"
    yield f"{out / WEIGHTS}: the network"


def check_free(out: Path) -> None:
    """Raise InputError where the folder holds files of somebody else."""
    own = {WEIGHTS, confusion.TABLE, confusion.FIGURE}
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= own):
        raise InputError(f"{out}: exists and holds other files; name a new folder by -o")


def trained(made: SyntheticSet, evaluation: Evaluation, seed: int, device: str) -> Weights:
    """The network that is evaluated first where the set is made: of its first run, number 0."""
    inputs, labels = made.inputs.to(device), made.labels.to(device)
    running.compiling(True, device, evaluation.network)
    return fit(
        evaluation.network,
        lambda chosen: inputs[chosen],
        labels,
        evaluation.schedule,
        (seed, "evaluate", 0, 0),
        Progress("train"),
        NoCheckpoints(),
    )


def save(path: Path, weights: Weights, made: SyntheticSet, evaluation: Evaluation) -> None:
    """The weights as safetensors; the metadata entry ``network`` says in JSON what they are of."""
    said = {
        "family": evaluation.family,
        **evaluation.options,
        "input": list(made.inputs.shape[1:]),
        "class_names": made.class_names,
        "mean": made.normalisation.mean,
        "std": made.normalisation.std,
    }
    tensors = {name: value.cpu().contiguous() for name, value in weights.items()}
    for name, value in tensors.items():
        if not np.isfinite(value.numpy()).all():
            raise InputError(f"{name} holds NaN or infinity; the training did not converge")
    safetensors.torch.save_file(tensors, path, {"network": json.dumps(said)})
