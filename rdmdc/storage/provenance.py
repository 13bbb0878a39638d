"""What an artifact is made from: the sidecar ``<artifact>.provenance.json`` beside each.

It holds what varies between runs (seconds, host, time, commit), the artifact's size and sha256, and
the sha256 of each input. The paths of inputs are relative to the folder in which the job ran, or
absolute.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rdmdc.errors import ArtifactError
from rdmdc.storage.reading import content, reading

SUFFIX = ".provenance.json"
PARTIAL = ".partial"  # ends the hidden name of what is being written
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Provenance:
    """How an artifact is made: stage and options, digest of the code, sha256 of each input."""

    stage: str
    options: Mapping[str, Any]
    code: str
    inputs: Mapping[str, str]
    started: float  # by a clock that does not jump

    @classmethod
    def begin(
        cls, stage: str, options: Mapping[str, Any], code: str, inputs: Iterable[Path]
    ) -> Provenance:
        """Note the start of a job: its clock begins, its inputs are hashed."""
        return cls(stage, options, code, {str(p): verified(p) for p in inputs}, time.monotonic())


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says of its artifact; the names are its keys."""

    artifact: str  # name without folder
    bytes: int
    sha256: str
    stage: str
    options: Mapping[str, Any]
    code: str
    inputs: Mapping[str, str]  # sha256 by path
    seconds: float
    finished: str  # in UTC
    host: str
    commit: str | None
    versions: Mapping[str, str]


KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("artifact", "sha256", "stage", "code", "finished", "host"), str),
    **dict.fromkeys(("options", "inputs", "versions"), dict),
    "bytes": int,
    "seconds": (int, float),
    "commit": (str, type(None)),
}
"""The types of a sidecar's entries; entries that other versions wrote are ignored."""


def sha256(path: Path) -> str:
    """The file's sha256 as hex digits; ArtifactError where there is no such file."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path) -> str:
    """The file's sha256; ArtifactError where its sidecar, if it has one, is damaged or differs."""
    found, beside = sha256(path), sidecar_of(path)
    if os.path.lexists(beside) and found != read(beside).sha256:
        raise ArtifactError(
            f"{path}: damaged or changed, its sha256 is not the one in {beside.name};"
            " delete it and run snakemake again"
        )
    return found


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of an artifact is."""
    return path.with_name(path.name + SUFFIX)


def read(path: Path) -> Sidecar:
    """A sidecar; ArtifactError where an entry is missing or of another type."""
    artifact = path.name.removesuffix(SUFFIX)
    try:
        with reading(path):
            return _parsed(content(path))
    except ArtifactError as error:
        remedy = f"delete it and {artifact} and run snakemake again"
        fault = str(error).removesuffix("delete it and run snakemake again")
        raise ArtifactError(f"{fault}{remedy}" if fault != str(error) else fault) from error


def _parsed(raw: bytes) -> Sidecar:
    said = json.loads(raw)
    for key, kind in KINDS.items():
        if not isinstance(said[key], kind):
            raise ValueError(f"{key} is {said[key]!r}, of another type than expected")
    for digest in (said["sha256"], *said["inputs"].values()):
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise ValueError("a sha256 is not 64 hex digits")
    return Sidecar(**{key: said[key] for key in KINDS})


def text(artifact: Path, size: int, digest: str, provenance: Provenance) -> bytes:
    """The sidecar of an artifact of that size and sha256."""
    sidecar = Sidecar(
        artifact=artifact.name,
        bytes=size,
        sha256=digest,
        stage=provenance.stage,
        options=provenance.options,
        code=provenance.code,
        inputs=provenance.inputs,
        seconds=round(time.monotonic() - provenance.started, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        commit=_commit(),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("rdmdc", "torch", "pyarrow", "safetensors")},
        },
    )
    return (json.dumps(asdict(sidecar), indent=2) + "\n").encode()


def _commit() -> str | None:
    """The commit of the source tree, None outside a git checkout."""
    folder = Path(__file__).parents[1]
    with suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return run.stdout.strip()
    return None
