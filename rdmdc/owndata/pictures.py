"""A condensed set as pictures: 8-bit images, PNG files, a table and a preview."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from rdmdc.records import SyntheticSet

TILE, GAP = 64, 4  # pixels, of the preview


def quantised(made: SyntheticSet) -> torch.Tensor:
    """The images (N, C, H, W) uint8: values outside 0..1 are cut off, the rest rounded."""
    mean, std = moments(made)
    return ((made.inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def of_pixels(made: SyntheticSet, pixels: torch.Tensor) -> SyntheticSet:
    """The set that somebody has who trains on the 8-bit images."""
    mean, std = moments(made)
    return replace(made, inputs=(pixels.float() / 255 - mean) / std)


def moments(made: SyntheticSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, each (1, C, 1, 1), that the exact values are normalised by."""
    mean = torch.tensor(made.normalisation.mean).view(1, -1, 1, 1)
    return mean, torch.tensor(made.normalisation.std).view(1, -1, 1, 1)


def write_files(folder: Path, made: SyntheticSet, pixels: torch.Tensor) -> None:
    """``<label>-<class>/<number>.png``: sorted by name they are in the order of the labels."""
    names = [re.sub(r"[^\w.-]+", "-", name).strip(".-") or "class" for name in made.class_names]
    _write(folder, [f"{label:03d}-{name}" for label, name in enumerate(names)], made, pixels)


def write_class_folders(folder: Path, made: SyntheticSet, pixels: torch.Tensor) -> None:
    """``<class>/<number>.png``; of a class's name only what no file may be called is replaced."""
    names = [re.sub(r"[/\0]", "-", name) for name in made.class_names]
    names = [name if name.strip(".") else f"class {label}" for label, name in enumerate(names)]
    twice = {name for name in names if names.count(name) > 1}
    names = [f"{name} {label}" if name in twice else name for label, name in enumerate(names)]
    _write(folder, names, made, pixels)


def _write(folder: Path, names: list[str], made: SyntheticSet, pixels: torch.Tensor) -> None:
    for index, label in enumerate(made.labels.tolist()):
        path = folder / names[label] / f"{index % made.ipc:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels[index]))


def write_table(path: Path, made: SyntheticSet, pixels: torch.Tensor) -> None:
    """A Parquet file in the schema of the Hugging Face hub: an image and a label in each row."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(made.class_names), "_type": "ClassLabel"},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(image), "path": f"{index:05d}.png"} for index, image in enumerate(pixels)]
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(made.labels.numpy())})
    said = json.dumps({"info": {"features": features}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": said}), path)


def write_preview(path: Path, made: SyntheticSet, pixels: torch.Tensor) -> None:
    """Up to ten images of each of up to twenty classes, a class a row."""
    classes, shown = min(20, len(made.class_names)), min(10, made.ipc)
    times = max(1, TILE // pixels.shape[-1])
    side = pixels.shape[-1] * times
    size = shown * (side + GAP) + GAP, classes * (side + GAP) + GAP
    sheet = Image.new("RGB", size, "white")
    for label in range(classes):
        for column in range(shown):
            image = picture(pixels[label * made.ipc + column]).resize((side, side), 0)
            sheet.paste(image, (GAP + column * (side + GAP), GAP + label * (side + GAP)))
    sheet.save(path)


def picture(pixels: torch.Tensor) -> Any:
    """An image (C, H, W) uint8 as PIL has it."""
    array = pixels.numpy()
    return Image.fromarray(
        array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
    )


def png(pixels: torch.Tensor) -> bytes:
    """An image (C, H, W) uint8 as PNG."""
    buffer = BytesIO()
    picture(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
