"""The origin of tables and figures: their sidecars, followed back to the data set's files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdmdc.errors import ArtifactError
from rdmdc.reporting.pages import page
from rdmdc.storage.provenance import Sidecar, read, sidecar_of


@dataclass(frozen=True)
class Origin:
    """An artifact and its sidecar, which is None for a file of the data set."""

    path: str
    sha256: str
    made: Sidecar | None


def lineage(paths: Iterable[Path]) -> list[Origin]:
    """The artifacts and all that they come from, each once, in the order they were finished.

    Raises ArtifactError where a sidecar is missing or damaged, or where an input of an artifact has
    changed since.
    """
    found: dict[str, Origin] = {}
    waiting: list[tuple[str, str | None]] = [(str(path), None) for path in paths]
    while waiting:
        path, wanted = waiting.pop()
        if path not in found:
            found[path] = _origin(Path(path), wanted)
            if made := found[path].made:
                waiting += made.inputs.items()
                content = made.options.get("content")  # of an embedded data set: it has no path
                for name, digest in content.items() if isinstance(content, dict) else ():
                    found[name] = Origin(name, digest, None)
        if wanted not in (None, found[path].sha256):
            raise ArtifactError(
                f"{path}: not what its artifacts were made from; `rdmdc verify` tells which"
            )
    return sorted(found.values(), key=lambda o: (o.made.finished if o.made else "", o.path))


def _origin(path: Path, wanted: str | None) -> Origin:
    beside = sidecar_of(path)
    if wanted is not None and not os.path.lexists(beside):
        return Origin(str(path), wanted, None)
    made = read(beside)
    return Origin(str(path), made.sha256, made)


def html(origins: Iterable[Origin], preset: str) -> str:
    """A page with a row for each, under the preset's name."""
    listed = list(origins)
    made = [origin.made for origin in listed if origin.made]
    versions = {f"{name} {number}" for said in made for name, number in said.versions.items()}
    size = sum(said.bytes for said in made) / 1e6
    return page(
        f"Provenance of preset {preset}",
        pd.DataFrame([_row(origin) for origin in listed]),
        [
            f"{len(made)} artifacts of {size:.1f} MB; {len(listed) - len(made)} files without a"
            " sidecar, the data set's own.",
            f"Commit: {', '.join(sorted({said.commit or 'none' for said in made}))}.",
            f"Versions: {', '.join(sorted(versions))}.",
        ],
    )


def _row(origin: Origin) -> dict[str, str]:
    made = origin.made
    return {
        "Artifact": origin.path,
        "Stage": made.stage if made else "–",
        "Finished": made.finished if made else "",
        "Seconds": f"{made.seconds:.1f}" if made else "",
        "Bytes": str(made.bytes) if made else "",
        "Host": made.host if made else "",
        "Commit": (made.commit or "")[:10] if made else "",
        "Code": made.code if made else "",
        "sha256": origin.sha256,
    }
