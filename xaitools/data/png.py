"""Pictures and label maps as the bytes of PNG files, so that what is written reads back as the same values."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor


def png(image: Tensor) -> bytes:
    """A picture (3, H, W) in [0, 1]; exact where it has 8 bits per channel."""
    return _encoded(Image.fromarray((image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()))


def png_map(values: Tensor, palette: bool = False) -> bytes:
    """A label map (H, W) of values below 65536 in grey of 8 or 16 bits; with ``palette`` below 256, in the colours of VOC."""
    array = values.numpy()
    picture = Image.fromarray(array.astype(np.uint8 if array.max(initial=0) < 256 else np.uint16))
    if palette:
        picture.putpalette([channel for value in range(256) for channel in colour(value)])
    return _encoded(picture)


def png_segments(numbers: Tensor) -> bytes:
    """Segment numbers (H, W) below 2**24, as ``read_segments`` reads them."""
    array = numbers.numpy()
    return _encoded(Image.fromarray(np.stack([array >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)))


def colour(value: int) -> tuple[int, int, int]:
    """The colour that the VOC development kit gives to a label: its bits in turn become the high bits of red, green and blue.

    >>> colour(1), colour(15), colour(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    red, green, blue = (sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
    return red, green, blue


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
