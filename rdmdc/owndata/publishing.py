"""The folder SET: exact values, images, a table, a card, and where it all comes from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import safetensors.torch

from rdmdc.checkpoints import NoCheckpoints
from rdmdc.datasets.listed_files import sha256
from rdmdc.errors import InputError
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models import running
from rdmdc.models.training import Schedule
from rdmdc.options import build
from rdmdc.owndata import audit as auditing
from rdmdc.owndata import card, croissant, opening, origin, pictures
from rdmdc.owndata.audit import Audit
from rdmdc.progress import Progress
from rdmdc.records import LabelledImages, SyntheticSet
from rdmdc.storage import provenance
from rdmdc.storage.images import load_images, load_synthetic
from rdmdc.storage.rows import load_rows

TABLE = Path("data/train.parquet")


@dataclass(frozen=True)
class Made:
    """What the workflow made: its preset, the method, where the set and the test split are."""

    name: str
    licence: str
    preset: Mapping[str, Any]
    method: str
    folder: Path
    test: Path


def check_free(out: Path) -> None:
    """Raise InputError where the folder holds something that this command did not make."""
    if out.is_dir() and any(out.iterdir()) and not (out / opening.PRESET).is_file():
        raise InputError(f"{out}: holds other files; name a new folder, or empty this one")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: exists and is no folder; name another")


def publish(out: Path, made: Made, audited: Audit, work: Path) -> dict[str, list[float]]:
    """Write everything but the preset; images of an earlier set are removed first.

    Returns the accuracies with "exact" values and with "8-bit" images.
    """
    path = made.folder / f"{made.method}.safetensors"
    synthetic, test = load_synthetic(path), load_images(made.test)
    pixels = pictures.quantised(synthetic)
    exact = load_rows(made.folder / f"{made.method}.scores.parquet", "scores")["accuracy"].tolist()
    rounded = _rounded(made, path, synthetic, test, work)
    shutil.rmtree(out / "images", ignore_errors=True)
    save_exact(out / opening.EXACT, synthetic)
    pictures.write_files(out / "images", synthetic, pixels)
    pictures.write_table(out / TABLE, synthetic, pixels)
    pictures.write_preview(out / "preview.png", synthetic, pixels)
    measured = {"exact": exact, "8-bit": rounded}
    sidecar = provenance.read(provenance.sidecar_of(path))
    origin.write(out / "provenance.json", made.preset, audited, measured, sidecar)
    facts = card.Facts(made.name, made.licence, made.method, made.preset, audited, measured)
    write_card(out / "README.md", card.text(facts, synthetic), work / "README.md")
    described = croissant.described(facts.name, facts.licence, synthetic, sha256(out / TABLE))
    (out / "croissant.json").write_text(
        json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return measured


def write_card(path: Path, text: str, latest: Path) -> None:
    """Write the card, but only to ``latest`` where somebody has edited the one that is there.

    ``latest`` holds the card as this command wrote it last.
    """
    known = latest.read_text(encoding="utf-8") if latest.is_file() else None
    edited = path.is_file() and path.read_text(encoding="utf-8") not in (known, text)
    latest.write_text(text, encoding="utf-8")
    if edited:
        print(f"{path}: edited, so it stays as it is; {latest} is the card of this run")
    else:
        path.write_text(text, encoding="utf-8")


def save_exact(path: Path, made: SyntheticSet) -> None:
    """``inputs`` and ``labels`` as safetensors; in its metadata ``set``: class_names, mean, std.

    One entry of JSON, since the order in which the library writes several differs between runs.
    """
    said = {
        "class_names": made.class_names,
        "mean": made.normalisation.mean,
        "std": made.normalisation.std,
    }
    tensors = {"inputs": made.inputs.contiguous(), "labels": made.labels.contiguous()}
    safetensors.torch.save_file(tensors, path, {"set": json.dumps(said)})


def _rounded(
    made: Made, path: Path, synthetic: SyntheticSet, test: LabelledImages, work: Path
) -> list[float]:
    """Accuracies of networks trained on the 8-bit images, kept in ``work`` for the next call."""
    memory, key = work / "rounded.json", f"{sha256(path)} {sha256(made.test)}"
    if memory.is_file() and (known := json.loads(memory.read_text())).get("of") == key:
        return list(known["accuracies"])
    options = dict(made.preset["evaluate"])
    trained = options.pop("networks")["convnet"]
    _, channels, side, _ = test.pixels.shape
    own = made.preset["networks"]["convnet"]
    network = auditing.network(channels, side, len(test.class_names), own["width"])
    device = made.preset["device"]
    running.compiling(True, device, network)
    rows = evaluate(
        pictures.of_pixels(synthetic, pictures.quantised(synthetic)),
        test,
        [],
        network,
        build(Schedule, options, "evaluate"),
        trained,
        made.preset["seed"],
        0,
        device,
        Progress("evaluate the 8-bit images"),
        NoCheckpoints(),
    )
    accuracies = [float(value) for value in rows["accuracy"]]
    memory.write_text(json.dumps({"of": key, "accuracies": accuracies, "mean": mean(accuracies)}))
    return accuracies
