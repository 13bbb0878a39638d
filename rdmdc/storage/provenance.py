"""What an artifact is made from: the sidecar ``<artifact>.provenance.json`` beside each.

It holds what varies between runs (seconds, host, time, commit), the artifact's size and sha256, the
sha256 of each input, and last a sha256 of itself: of its own bytes with those 64 digits as zeros.
The paths of inputs are relative to the folder in which the job ran, or absolute.
"""

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rdmdc.errors import ArtifactError, InputError

SUFFIX = ".provenance.json"
PARTIAL = ".partial"  # ends the hidden name of what is being written
LARGEST = 1 << 22  # bytes of a sidecar, or of an artifact's metadata, that are read
SHA256 = re.compile("[0-9a-f]{64}")
BLANK = "0" * 64


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
    ) -> "Provenance":
        """Note the start of a job: its clock begins, its inputs are hashed."""
        return cls(stage, options, code, {str(p): verified(p) for p in inputs}, time.monotonic())


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says of its artifact: its name, size, sha256, and the sha256 of its inputs."""

    artifact: str
    size: int
    sha256: str
    inputs: Mapping[str, str]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every fault of a reader into an ArtifactError that names the file and a remedy."""
    remedy = "delete it and run snakemake again"
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; run snakemake to make it") from error
    except PermissionError as error:
        raise ArtifactError(f"{path}: may not be read; mend its permissions") from error
    except MemoryError as error:
        raise ArtifactError(
            f"{path}: too little memory to read it ({error}); give the job more, or {remedy}"
        ) from error
    except ArtifactError:
        raise
    except InputError as error:
        raise ArtifactError(f"{path}: {error}; {remedy}") from error
    except KeyError as error:
        raise ArtifactError(f"{path}: damaged or of another kind (no {error}); {remedy}") from error
    except Exception as error:  # readers of damaged files raise nearly anything
        raise ArtifactError(f"{path}: damaged or of another kind ({error}); {remedy}") from error


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
    """A sidecar; ArtifactError where it is not as it was written, or not a sidecar at all."""
    artifact = path.name.removesuffix(SUFFIX)
    try:
        with reading(path):
            return _parsed(_content(path))
    except ArtifactError as error:
        remedy = f"delete it and {artifact} and run snakemake again"
        fault = str(error).removesuffix("delete it and run snakemake again")
        raise ArtifactError(f"{fault}{remedy}" if fault != str(error) else fault) from error


def _content(path: Path) -> bytes:
    """All bytes of a regular file of bounded size: never a pipe or a device, which may not end."""
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    return content


def _parsed(content: bytes) -> Sidecar:
    said = json.loads(content)
    own = said["sidecar_sha256"]
    head, _, tail = content.rpartition(own.encode())
    blanked = head + BLANK.encode() + tail
    if not SHA256.fullmatch(own) or hashlib.sha256(blanked).hexdigest() != own:
        raise ValueError("its bytes are not those of its sidecar_sha256")
    digests = [said["sha256"], *said["inputs"].values()]
    if not all(isinstance(d, str) and SHA256.fullmatch(d) for d in digests):
        raise ValueError("a sha256 is not 64 hex digits")
    if not isinstance(said["artifact"], str) or not isinstance(said["bytes"], int):
        raise ValueError("artifact is not a name or bytes not a number")
    return Sidecar(said["artifact"], said["bytes"], said["sha256"], said["inputs"])


def text(artifact: Path, size: int, digest: str, provenance: Provenance) -> bytes:
    """The sidecar of an artifact of that size and sha256."""
    content = {
        "artifact": artifact.name,
        "bytes": size,
        "sha256": digest,
        "stage": provenance.stage,
        "options": provenance.options,
        "code": provenance.code,
        "inputs": provenance.inputs,
        "seconds": round(time.monotonic() - provenance.started, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("rdmdc", "torch", "pyarrow")},
        },
        "sidecar_sha256": BLANK,
    }
    blanked = json.dumps(content, indent=2) + "\n"
    head, _, tail = blanked.rpartition(BLANK)
    return f"{head}{hashlib.sha256(blanked.encode()).hexdigest()}{tail}".encode()


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
