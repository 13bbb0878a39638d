"""Images that lie in more than one class, equal in every pixel."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from rdmdc.records import LabelledImages


def across_classes(images: LabelledImages) -> list[list[int]]:
    """Groups of indices of equal images whose labels differ, each ascending."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, pixels in enumerate(images.pixels):
        groups[hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()].append(index)
    return [
        group
        for group in groups.values()
        if len({int(images.labels[index]) for index in group}) > 1
    ]
