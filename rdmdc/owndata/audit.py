"""Audit: which images of a data set look poisoned, class by class."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rdmdc import __version__, plugins
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.datasets import image_list
from rdmdc.datasets.image_list import ImageList
from rdmdc.errors import InputError
from rdmdc.models import running
from rdmdc.models.network import Network
from rdmdc.options import build
from rdmdc.owndata import duplicates, reading, verdicts
from rdmdc.owndata.listings import Wanted
from rdmdc.owndata.survey import Survey, survey
from rdmdc.progress import Progress
from rdmdc.records import LabelledImages, Screening
from rdmdc.screens.screening import Suspects
from rdmdc.training_data import TrainingData

AUGMENTATION = ("color", "crop", "cutout", "flip", "scale", "rotate")
WIDTH = 32


class AuditError(InputError):
    """The audit can't say anything of this data; the message says why."""


@dataclass(frozen=True)
class Audit:
    """What an audit found: the images, a row for each (`verdicts.rows`) and for each class."""

    data: str
    survey: Survey
    listed: ImageList
    images: LabelledImages
    rows: pd.DataFrame
    classes: pd.DataFrame
    equal: list[list[int]]  # rows of images that lie in several classes

    @property
    def found(self) -> bool:
        """True if a class is suspicious."""
        return bool(self.rows["flagged"].any())


def audit(wanted: Wanted, work: Path, size: int | None, seed: int, device: str) -> Audit:
    """Audit the training split; decoded images lie in the folder ``work`` until it is removed.

    Raises DatasetError, or AuditError where every class is too small to tell.
    """
    work.mkdir(parents=True, exist_ok=True)
    found = survey(wanted, work / "images.parquet")
    options = reading.dataset(work / "images.parquet", size or found.size, found.color)
    images = reading.training_split(options, work / "train.safetensors")
    fewest = verdicts.SCREEN["fewest"]
    if max(found.train) < fewest:
        raise AuditError(
            f"{wanted.data}: its largest class has {max(found.train)} images; below {fewest} clean"
            " classes look poisoned too often, so that the audit cannot tell"
        )
    screening = screened(images, seed, device)
    return of(wanted.data, found, image_list.load(work / "images.parquet"), images, screening)


def of(
    data: str, found: Survey, listed: ImageList, images: LabelledImages, screening: Screening
) -> Audit:
    """The audit that a screening of listed images amounts to."""
    fewest = verdicts.SCREEN["fewest"]
    rows = verdicts.rows(images, screening, fewest)
    order = listed.sorted_training()
    rows.insert(0, "file", [listed.files[index] for index in order])
    rows.insert(1, "row", listed.rows[order])
    return Audit(
        data,
        found,
        listed,
        images,
        rows,
        verdicts.classes(rows, fewest),
        duplicates.across_classes(images),
    )


def screened(images: LabelledImages, seed: int, device: str) -> Screening:
    """The screening of a training split by the screen that decides itself how many to leave out."""
    screen = plugins.get("screen", "contrastive_minorities", "audit")
    channels, side = images.pixels.shape[1], images.pixels.shape[2]
    net = network(channels, side, len(images.class_names), WIDTH)
    running.compiling(True, device, net)
    suspects = Suspects(
        TrainingData(images),
        torch.zeros(len(images.labels), dtype=torch.bool),
        net,
        AUGMENTATION,
        seed,
        device,
    )
    own = build(screen.options, verdicts.SCREEN, "audit")
    found: Screening = screen(suspects, own, Progress("audit"), NoCheckpoints())
    return found


def network(channels: int, side: int, classes: int, width: int) -> Network:
    """The network family that images of a side are seen by."""
    family = plugins.get("network", "convnet", "audit")
    options = build(family.options, {"width": width, "depth": depth(side)}, "audit")
    made: Network = family(channels, side, classes, options)
    return made


def depth(side: int) -> int:
    """Blocks of the ConvNet that halve a side down to 4 to 7 pixels."""
    return max(1, (side // 4).bit_length() - 1)


def save(path: Path, found: Audit) -> None:
    """Write the rows as Parquet, with how they were made in the metadata."""
    said: dict[str, Any] = {
        "rdmdc": __version__,
        "data": found.data,
        "screen": verdicts.SCREEN,
        "size": found.images.pixels.shape[-1],
    }
    table = pa.Table.from_pandas(found.rows, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({b"rdmdc": json.dumps(said)}), path)


def summary(found: Audit) -> list[str]:
    """What is printed: a line for each class that needs one, and how far it can be trusted."""
    suspicious = found.classes[found.classes["verdict"] == verdicts.FOUND]
    unknown = found.classes[found.classes["verdict"] == verdicts.UNKNOWN]
    lines = [
        f"{found.data}: {len(found.rows)} images of {len(found.classes)} classes"
        f" ({found.survey.sizes}; seen at {found.images.pixels.shape[-1]} pixels)"
    ]
    for row in suspicious.itertuples():
        lines.append(
            f"  suspicious: class {row[2]!r}: {row.flagged} of {row.images} images stand apart"
            f" (separation {row.separation:.2f})"
        )
    if len(suspicious):
        lines.append("  Look at them in the report: poisons, or many nearly equal images?")
    else:
        lines.append("  nothing found")
    if len(unknown):
        names = ", ".join(map(repr, unknown["class"][:5])) + (", …" if len(unknown) > 5 else "")
        lines.append(f"  cannot tell: {names}: fewer than {verdicts.SCREEN['fewest']} images")
    if found.equal:
        first = found.rows.loc[found.equal[0]]
        lines.append(
            f"  equal images in different classes: {len(found.equal)}, such as"
            f" {place(first.iloc[0])} and {place(first.iloc[1])}; one label of each is wrong"
        )
    return lines + left_out(found.survey)


def left_out(found: Survey) -> list[str]:
    """What could not be read, a line each, and of many how many more there are."""
    lines = [f"  left out: {where}: {fault}" for where, fault in found.faults[:20]]
    if len(found.faults) > 20:
        lines.append(f"  left out: {len(found.faults) - 20} more")
    return lines


def place(row: Any) -> str:
    """Where an image is: its file, and its row where the file has several."""
    return row["file"] if row["row"] < 0 else f"{row['file']} row {row['row']}"


def cleared(work: Path) -> None:
    """Remove the decoded images."""
    shutil.rmtree(work, ignore_errors=True)


def flagged(found: Audit) -> np.ndarray:
    """Indices in the list of the images that are flagged."""
    order = found.listed.sorted_training()
    return order[found.rows["flagged"].to_numpy()]
