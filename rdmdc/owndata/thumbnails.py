"""Images as data URIs for a page."""

from __future__ import annotations

import base64
from io import BytesIO

import torch
from PIL import Image

SIDE = 64


def data_uri(pixels: torch.Tensor, side: int = SIDE) -> str:
    """An image (C, H, W) uint8 as a PNG of at least ``side`` pixels, without smoothing."""
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    times = max(1, side // image.width)
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
