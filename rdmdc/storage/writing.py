"""Writing an artifact and its sidecar: both are saved whole, or neither is."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rdmdc.errors import ArtifactError
from rdmdc.storage.provenance import PARTIAL, Provenance, sha256, sidecar_of, text


def write(path: Path, provenance: Provenance, fill: Callable[[IO[bytes]], object]) -> None:
    """Write ``path`` by ``fill`` and its sidecar; both are complete before either gets its name.

    The sidecar gets its name first, so that no artifact is ever without one.
    """
    try:
        with _temporary(path, fill) as artifact:
            content = text(path, artifact.stat().st_size, sha256(artifact), provenance)
            with _temporary(sidecar_of(path), lambda file: file.write(content)) as sidecar:
                os.replace(sidecar, sidecar_of(path))
                os.replace(artifact, path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror or error};"
            " free some space or mend the folder's permissions, then run again"
        ) from error


def save_bytes(path: Path, content: bytes, provenance: Provenance) -> None:
    """Save a table or a figure."""
    write(path, provenance, lambda file: file.write(content))


@contextmanager
def _temporary(path: Path, fill: Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """A hidden file beside ``path``, filled and flushed to disk; deleted at the end unless renamed.

    First remove temporary files of this path that killed jobs left behind.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????{PARTIAL}"):
            left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
        ) as file:
            temporary = Path(file.name)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        yield temporary
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
