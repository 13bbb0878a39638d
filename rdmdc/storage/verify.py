"""Whether what lies below a folder is what was saved: ``rdmdc verify results/``.

Each artifact must have the size and the sha256 that its sidecar names, each sidecar its artifact,
and each input of an artifact the sha256 that it had then. Nothing is parsed but sidecars, of
bounded size; files are hashed in parts.

Artifacts are all files but logs (``.log`` below ``logs``), benchmarks (``.tsv`` below
``benchmarks``) and whatever is hidden: checkpoints, Snakemake's own. What a job that was killed
left half written is a finding. So are links and other files that are not regular; they are not
followed. Paths of inputs are relative to the working directory, as they were to the job's.
"""

import argparse
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rdmdc.errors import ArtifactError, line
from rdmdc.storage import provenance
from rdmdc.storage.provenance import PARTIAL, SUFFIX, Sidecar, sidecar_of

REMAKE = "delete it and run snakemake again"
Digest = Callable[[Path], str | None]
NOT_ARTIFACTS = {("logs", ".log"), ("benchmarks", ".tsv")}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, and what to do."""

    path: Path
    fault: str
    remedy: str

    def __str__(self) -> str:
        return line(f"{self.path}: {self.fault}; {self.remedy}")


def verify(args: argparse.Namespace) -> int:
    """Print a line for each finding and one with the counts; 1 where there are findings, else 0."""
    artifacts = found = 0
    digest = lru_cache(maxsize=1 << 16)(_sha256)  # an artifact is an input of many
    for path in files(args.folder):
        artifacts += not path.name.endswith((SUFFIX, PARTIAL))
        for finding in findings(path, digest):
            found += 1
            print(finding)
    print(f"{artifacts} artifacts, {found} findings")
    return int(found > 0)


def files(folder: Path) -> Iterator[Path]:
    """The artifacts, sidecars and half-written files below a folder, and folders that cannot be
    looked into."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder
            continue
        inner = []
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") and not entry.name.endswith(PARTIAL):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
            elif not any(path.suffix == end and top in path.parts for top, end in NOT_ARTIFACTS):
                yield path
        waiting += reversed(inner)


def findings(path: Path, digest: Digest) -> Iterator[Finding]:
    """What is wrong with an artifact and its inputs, or with a sidecar."""
    fault = _unreadable(path)
    if fault is not None:
        yield Finding(path, fault, "replace it by the file itself, or mend its permissions")
    elif path.name.startswith("."):
        remedy = "run snakemake again, or delete it where no job runs"
        yield Finding(path, "half written: its job runs or was killed", remedy)
    elif path.name.endswith(SUFFIX):
        yield from _of_sidecar(path)
    elif not sidecar_of(path).is_file():
        yield Finding(path, "has no sidecar", f"{REMAKE}, or move it elsewhere if it is your own")
    else:
        try:
            sidecar = provenance.read(sidecar_of(path))
        except ArtifactError:
            return  # found with the sidecar
        yield from _of_artifact(path, sidecar, digest)


def _of_sidecar(path: Path) -> Iterator[Finding]:
    artifact = path.with_name(path.name.removesuffix(SUFFIX))
    if not os.path.lexists(artifact):
        remedy = "run snakemake again to make that, or delete it if that is no longer wanted"
        yield Finding(path, f"a sidecar without its artifact {artifact.name}", remedy)
    try:
        named = provenance.read(path).artifact
    except ArtifactError as error:
        fault, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
        yield Finding(path, fault, remedy)
    else:
        if named != artifact.name:
            yield Finding(path, f"the sidecar of {named}", f"delete both and {artifact.name}")


def _of_artifact(path: Path, sidecar: Sidecar, digest: Digest) -> Iterator[Finding]:
    size = path.stat().st_size
    if size != sidecar.bytes:
        fault = "truncated" if size < sidecar.bytes else "altered"
        yield Finding(path, f"{fault}: {size} bytes, not {sidecar.bytes}", REMAKE)
    elif digest(path) != sidecar.sha256:
        yield Finding(path, "altered: its sha256 is not its sidecar's", REMAKE)
    for name, wanted in sidecar.inputs.items():
        found = digest(Path(name))
        if found is None:
            remedy = "run this where snakemake ran; or restore that, or delete this one"
            yield Finding(path, f"its input {name} does not exist or cannot be read", remedy)
        elif found != wanted:
            remedy = "mend that if it is altered; then run snakemake again, or delete this one"
            yield Finding(path, f"its input {name} has changed since", remedy)


def _sha256(path: Path) -> str | None:
    """The sha256 of a regular file, perhaps behind a link; None where there is none to be read."""
    try:
        return provenance.sha256(path) if path.is_file() else None
    except (ArtifactError, OSError, ValueError):  # a name too long or with a null byte
        return None


def _unreadable(path: Path) -> str | None:
    """Why a file is no regular one that can be read."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            kind = "link" if path.is_symlink() else "folder, pipe or device"
            return f"a {kind} that is not looked into"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None
