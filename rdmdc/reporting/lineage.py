"""What tables and figures come from: their sidecars followed back to the data set's own files."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdmdc.errors import ArtifactError
from rdmdc.reporting.pages import Cell, page
from rdmdc.storage import provenance
from rdmdc.storage.provenance import sidecar_of


@dataclass(frozen=True)
class Origin:
    """An artifact and what its sidecar says: ``made`` is empty for a file of the data set's own."""

    path: str
    sha256: str
    made: Mapping[str, Any]


def lineage(paths: Iterable[Path]) -> list[Origin]:
    """The artifacts and all that they come from, each once, by the time they were finished.

    Raises ArtifactError where a sidecar is missing or damaged, or where an artifact came from
    something else than is there now.
    """
    found: dict[str, Origin] = {}
    waiting: list[tuple[str, str | None]] = [(str(path), None) for path in paths]
    while waiting:
        path, wanted = waiting.pop()
        if path not in found:
            found[path] = _origin(Path(path), wanted)
            waiting += found[path].made.get("inputs", {}).items()
            for name, digest in found[path].made.get("options", {}).get("content", {}).items():
                found[name] = Origin(name, digest, {})  # embedded: it has no path
        if wanted not in (None, found[path].sha256):
            raise ArtifactError(
                f"{path}: not what its artifacts were made from; `rdmdc verify` tells which"
            )
    return sorted(found.values(), key=lambda origin: (origin.made.get("finished", ""), origin.path))


def _origin(path: Path, wanted: str | None) -> Origin:
    beside = sidecar_of(path)
    if wanted is not None and not os.path.lexists(beside):
        return Origin(str(path), wanted, {})
    digest = provenance.read(beside).sha256  # whole, by its own sha256: what else it says holds
    return Origin(str(path), digest, json.loads(beside.read_bytes()))


def html(origins: Iterable[Origin], preset: str) -> str:
    """A page with a row for each, under the preset's name."""
    listed = list(origins)
    made = [origin.made for origin in listed if origin.made]
    versions = {f"{name} {number}" for said in made for name, number in said["versions"].items()}
    size = sum(said["bytes"] for said in made) / 1e6
    return page(
        f"Provenance of preset {preset}",
        [_row(origin) for origin in listed],
        [
            f"{len(made)} artifacts of {size:.1f} MB; {len(listed) - len(made)} files without a"
            " sidecar, the data set's own.",
            f"Commit: {', '.join(sorted({said['commit'] or 'none' for said in made}))}.",
            f"Versions: {', '.join(sorted(versions))}.",
        ],
    )


def _row(origin: Origin) -> dict[str, Cell]:
    said = {"stage": "–", "finished": "", "host": "", "code": "", **origin.made}
    size, seconds, commit = said.get("bytes"), said.get("seconds"), said.get("commit") or ""
    return {
        "Artifact": Cell(origin.path),
        "Stage": Cell(said["stage"]),
        "Finished": Cell(said["finished"]),
        "Seconds": Cell("" if seconds is None else f"{seconds:.1f}", seconds),
        "Bytes": Cell("" if size is None else str(size), size),
        "Host": Cell(said["host"]),
        "Commit": Cell(commit[:10]),
        "Code": Cell(said["code"]),
        "sha256": Cell(origin.sha256),
    }
