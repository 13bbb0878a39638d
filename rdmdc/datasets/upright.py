"""One image as people's files hold them: turned upright, 8 bits, grey or RGB, over white."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rdmdc.datasets.decoding import FORMATS


def header(encoded: bytes) -> tuple[tuple[int, int], bool]:
    """Width and height once upright, and whether the image is grey; nothing is decoded.

    Raises ValueError where the bytes are no image, and what PIL raises of a damaged one.
    """
    image = _opened(encoded)
    width, height = image.size
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return ((height, width) if turned else (width, height)), _is_grey(image)


def upright(encoded: bytes) -> np.ndarray:
    """The image as (H, W) uint8 where it is grey, else (H, W, 3), in its first frame.

    It is turned as its EXIF orientation says. 16-bit grey is scaled to 8 bits, CMYK converted
    without its profile, transparency composed over white. Raises ValueError for what has more than
    16 bits, and what PIL raises of a damaged image.
    """
    image = _opened(encoded)
    grey = _is_grey(image)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        values = np.asarray(image.convert("I"), np.int64)
        return ((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8)
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"mode {image.mode}, more than 16 bits a pixel; save it with 8 or 16")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L" if grey else "RGB"))


def _opened(encoded: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError as error:  # its own message is a memory address
        raise ValueError(f"not an image in {', '.join(FORMATS)}") from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
