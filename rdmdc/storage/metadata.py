"""What an artifact says of itself: its kind, and the stage and the options that made it.

It is JSON under the key ``rdmdc`` of the file's own metadata. An artifact's bytes depend on inputs,
options and code only; what varies between runs is in its sidecar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdmdc.errors import ArtifactError
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import LARGEST

KEY = "rdmdc"


def text(kind: str, provenance: Provenance, **more: Any) -> str:
    """The metadata of an artifact of this kind, with further entries of its own."""
    stated = {"kind": kind, "stage": provenance.stage, "options": provenance.options}
    return json.dumps({**stated, **more}, sort_keys=True)


def checked(
    path: Path, raw: str | bytes | None, kind: str, expect: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The artifact's metadata; ArtifactError unless it is of this kind, made with these options."""
    if raw is None:
        raise ArtifactError(
            f"{path}: not an artifact of rdmdc (no metadata), expected {kind}; mend the path, or"
            " delete it and run snakemake again"
        )
    if len(raw) > LARGEST:
        raise ValueError(f"metadata of more than {LARGEST} bytes")
    metadata: dict[str, Any] = json.loads(raw)
    if metadata["kind"] != kind:
        raise ArtifactError(
            f"{path}: holds {metadata['kind']}, expected {kind}; mend the path, or delete it and"
            " run snakemake again"
        )
    for key, wanted in (expect or {}).items():
        found = metadata["options"].get(key)
        if found != wanted:
            raise ArtifactError(
                f"{path}: made with {key} = {json.dumps(found)}, this job has"
                f" {json.dumps(wanted)}; delete it and run snakemake again"
            )
    return metadata
