"""Safetensors files of this package: named tensors, and metadata that say what they are.

Reading one runs no code. The library checks that types, shapes and places of all tensors fit the
file before it gives access to any of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors
import torch

from rdmdc.storage import metadata as own
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import LARGEST, check_regular
from rdmdc.storage.writing import write

Tensors = dict[str, torch.Tensor]
DTYPES = {torch.uint8: "U8", torch.int64: "I64", torch.float32: "F32"}
"""The types that are written."""


def save(
    path: Path, kind: str, tensors: Mapping[str, torch.Tensor], provenance: Provenance, **more: Any
) -> None:
    """Write a file of this kind; ``more`` are further entries of its metadata."""
    metadata = own.text(kind, provenance, **more)
    write(path, provenance, lambda file: _fill(file, tensors, metadata))


def _fill(file: IO[bytes], tensors: Mapping[str, torch.Tensor], metadata: str) -> None:
    """Write the bytes that safetensors.torch.save would return, without holding them in memory.

    A length, a header in JSON padded to a multiple of 8 bytes, then the values: the largest
    elements first so that all are aligned, then by name.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {own.KEY: metadata}}
    end = 0
    for name in order:
        value, start = tensors[name], end
        end += value.numel() * value.element_size()
        header[name] = {
            "dtype": DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    file.write(len(content).to_bytes(8, "little") + content)
    for name in order:
        file.write(tensors[name].detach().cpu().contiguous().reshape(-1).numpy().data)


def load(path: Path, kind: str, expect: Mapping[str, Any] | None) -> tuple[Tensors, dict[str, Any]]:
    """The tensors, memory-mapped, and the metadata."""
    check_regular(path)
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > 2 * LARGEST:
            raise ValueError(f"a header of more than {2 * LARGEST} bytes")
    with safetensors.safe_open(path, "pt") as file:
        metadata = own.checked(path, (file.metadata() or {}).get(own.KEY), kind, expect)
        tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    for name, value in tensors.items():
        if value.numel() == 0:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, which holds no values")
    return tensors, metadata


def exactly(tensors: Tensors, *names: str) -> list[torch.Tensor]:
    """The tensors of these names; ValueError where there are others."""
    if tensors.keys() != set(names):
        raise ValueError(f"tensors {', '.join(sorted(tensors))}, not {', '.join(sorted(names))}")
    return [tensors[name] for name in names]
