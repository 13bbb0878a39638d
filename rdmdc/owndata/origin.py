"""What a condensed set comes from: sha256 of every source file, options, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdmdc.owndata.audit import Audit
from rdmdc.storage.provenance import Sidecar


def write(
    path: Path,
    preset: Mapping[str, Any],
    audited: Audit,
    measured: Mapping[str, Sequence[float]],
    made: Sidecar,
) -> None:
    """Write what the set comes from; ``made`` is the sidecar of the workflow's own file of it.

    Names of files are relative to the data, and no host is named.
    """
    root = Path(audited.data).absolute()
    files = dict(zip(audited.listed.files, audited.listed.sha256, strict=True))
    flagged = int(audited.rows["flagged"].sum())
    said = {
        "made": made.finished,
        "data": root.name,
        "form": audited.survey.form,
        "images": {"train": sum(audited.survey.train), "test": sum(audited.survey.test)},
        "left_out_as_broken": len(audited.survey.faults),
        "flagged_by_the_audit": flagged,
        "accuracies": {name: list(values) for name, values in measured.items()},
        "options": {key: value for key, value in preset.items() if key not in UNSAID},
        "versions": dict(made.versions),
        "commit": made.commit,
        "sha256_of_code": made.code,
        "sha256_of_source_files": {
            _name(Path(file), root): digest for file, digest in files.items()
        },
    }
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


UNSAID = ("dataset", "cluster", "threads", "checkpoint_minutes", "description")
"""Sections of the preset that hold paths, or that no result depends on."""


def _name(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) and file != root else file.name
