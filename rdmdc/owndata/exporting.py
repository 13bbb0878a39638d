"""A condensed set as class folders, as NumPy arrays, or on the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from rdmdc.errors import InputError
from rdmdc.owndata import opening, pictures


class ExportError(InputError):
    """A set cannot be exported there; the message says why."""


def export(args: argparse.Namespace) -> str:
    """Write or push ``args.folder`` to ``args.output``; returns what to print.

    Raises ExportError, also where something is there already and ``args.replace`` is false.
    """
    opening.check(args.folder)
    return str(FORMS[args.to](args))


def _folder(args: argparse.Namespace) -> str:
    made, out = opening.opened(args.folder), Path(args.output)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: exists already; name a new folder, or empty this one")
    pictures.write_class_folders(out, made, pictures.quantised(made))
    return f"{out}: {len(made.labels)} images in folders of {len(made.class_names)} classes"


def _npz(args: argparse.Namespace) -> str:
    """8-bit ``images`` (N, H, W, C), exact ``inputs`` (N, C, H, W), ``labels``, ``class_names``.

    ``mean`` and ``std`` are what the exact values are normalised by.
    """
    made, out = opening.opened(args.folder), Path(args.output)
    if out.suffix != ".npz":
        raise ExportError(f"{out}: name a file that ends in .npz")
    if out.exists():
        _may_replace(args, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        images=pictures.quantised(made).permute(0, 2, 3, 1).numpy(),
        inputs=made.inputs.numpy(),
        labels=made.labels.numpy(),
        class_names=np.asarray(made.class_names),
        mean=np.asarray(made.normalisation.mean, np.float32),
        std=np.asarray(made.normalisation.std, np.float32),
    )
    return f"{out}: {len(made.labels)} images of {len(made.class_names)} classes"


def _huggingface(args: argparse.Namespace) -> str:
    """Push in one commit on top of what was looked at, so that no other push is lost."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError as error:
        raise ExportError(
            'huggingface_hub is not installed; pip install "rdmdc[publish]"'
        ) from error
    api, name = hub.HfApi(), args.output
    try:
        try:
            state = api.dataset_info(name)
        except RepositoryNotFoundError:
            api.create_repo(name, repo_type="dataset", private=not args.public)
            state = api.dataset_info(name)
        there = {file.rfilename for file in state.siblings or ()} - {".gitattributes"}
        if there:
            _may_replace(args, f"{name}: the data set on the hub")
        files = sorted(path for path in args.folder.rglob("*") if path.is_file())
        operations: list[Any] = [
            hub.CommitOperationAdd(path.relative_to(args.folder).as_posix(), path) for path in files
        ]
        added = {operation.path_in_repo for operation in operations}
        operations += [hub.CommitOperationDelete(path) for path in sorted(there - added)]
        done = api.create_commit(
            name,
            operations,
            commit_message="Condensed set, by rdmdc export",
            repo_type="dataset",
            parent_commit=state.sha,
        )
    except (ExportError, MemoryError):
        raise
    except Exception as error:  # of the hub, the network, and whichever client speaks to it
        raise ExportError(
            f"{name}: cannot be pushed ({error}); is OUT written OWNER/NAME, and are you logged in"
            " (hf auth login, or HF_TOKEN)?"
        ) from error
    return f"{done.repo_url}: {len(files)} files"


def _may_replace(args: argparse.Namespace, what: object) -> None:
    if not args.replace:
        raise ExportError(f"{what} exists already; name another, or replace it by --replace")


FORMS = {"huggingface": _huggingface, "folder": _folder, "npz": _npz}
