"""Reading pictures that anyone may have sent.

Size and format are checked before a pixel is decoded.  EXIF rotation is applied, and CMYK, palette,
grey, alpha and 16-bit pictures become RGB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Transpose
from torch import Tensor

from ..errors import DataError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 8
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

ORIENTATION = 0x0112
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read_image(source: str | Path | bytes, *, name: str | None = None) -> Tensor:
    """A picture as (3, H, W) float32 RGB in [0, 1], upright; of an animation the first frame.

    ``source`` is a path or the bytes of a file, ``name`` what errors call it.  Transparency is laid over white;
    16-bit grey is scaled by its own range of 65535.  Raises DataError for what is missing, empty, truncated, no
    picture, larger than ``MAX_PIXELS`` or ``MAX_BYTES``, or smaller than ``MIN_SIDE`` on a side.
    """
    pixels = _decoded(source, name, MIN_SIDE, lambda picture: _rgb(_upright(picture)))
    full = 255 if pixels.dtype == np.uint8 else 1
    return torch.from_numpy(np.divide(pixels.transpose(2, 0, 1), full, dtype=np.float32, order="C"))


def read_map(source: str | Path, size: tuple[int, ...], *, name: str | None = None) -> Tensor:
    """A label picture as (H, W) int64: palette indices or grey values, as stored.

    Raises DataError where it cannot be read, or is not of ``size``, the (H, W) of the picture that it labels.
    """
    return _labels(source, size, name, _indices)


def read_segments(source: str | Path, size: tuple[int, ...], *, name: str | None = None) -> Tensor:
    """A picture of segment numbers as (H, W) int64: red + 256 green + 65536 blue, as COCO's panoptic task stores them."""
    return _labels(source, size, name, _numbers)


def _labels(source: str | Path, size: tuple[int, ...], name: str | None, decode: Callable[[Image.Image], np.ndarray]) -> Tensor:
    values = torch.from_numpy(_decoded(source, name, 1, decode))
    if values.shape != torch.Size(size):
        raise DataError(f"{name or source}: label map is {_size(values.shape)}, its picture {_size(size)}; both must have one size")
    return values


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _decoded(source: str | Path | bytes, name: str | None, min_side: int, decode: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    shown = name or ("uploaded file" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _bytes(source, shown)
    _affordable(len(data), shown)
    if not data:
        raise DataError(f"{shown}: the file is empty; expected a picture ({', '.join(FORMATS)})")
    with warnings.catch_warnings():
        # what Pillow warns of is either refused here or does not touch the pixels
        warnings.simplefilter("ignore")
        picture = _opened(data, shown, min_side)
        try:
            return decode(picture)
        except DataError as error:
            raise DataError(f"{shown}: {error}") from None
        except Exception as error:  # on damaged bytes a decoder may raise anything
            raise DataError(f"{shown}: the picture is damaged or cut short ({error}); save it again or get the original") from None


def _bytes(source: str | Path, shown: str) -> bytes:
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            raise DataError(f"{shown}: a folder, not a picture; name a file in it, or a dataset as LAYOUT:PATH")
        if not path.is_file():
            raise DataError(f"{shown}: no such file; give the path of a picture ({', '.join(FORMATS)})")
        _affordable(path.stat().st_size, shown)
        return path.read_bytes()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{shown}: cannot be read ({getattr(error, 'strerror', error)}); check its name and permissions") from None


def _affordable(size: int, shown: str) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{shown}: {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read, so make it smaller")


def _opened(data: bytes, shown: str, min_side: int) -> Image.Image:
    """The picture with its header read and no pixel decoded."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise DataError(f"{shown}: far too many pixels; at most {MAX_PIXELS / 1e6:.0f} million are read, so scale it down") from None
    except Exception:  # as above: damaged headers raise anything
        raise DataError(f"{shown}: not a picture that can be read; expected {', '.join(FORMATS)}") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{shown}: {width} x {height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are read, so scale it down")
    if min(width, height) < min_side:
        raise DataError(f"{shown}: {width} x {height} pixels; at least {min_side} on each side are needed")
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says.  ``ImageOps.exif_transpose`` writes the EXIF block anew and fails where it is malformed."""
    picture.load()
    try:
        turn = UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken note about a picture is no reason to refuse the picture
        return picture
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3), uint8 or float32 in [0, 1]."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.nan_to_num(np.asarray(picture).astype(np.float32)) / (1 if picture.mode == "F" else 65535)
        return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def _indices(picture: Image.Image) -> np.ndarray:
    """(H, W) int64."""
    if picture.mode not in ("P", "L", "I", "I;16", "1"):
        raise DataError(f"a label map must hold one value a pixel (grey or palette), this one is {picture.mode}")
    return np.asarray(picture).astype(np.int64)


def _numbers(picture: Image.Image) -> np.ndarray:
    """(H, W) int64."""
    if picture.mode != "RGB":
        raise DataError(f"a picture of segment numbers must be RGB, this one is {picture.mode}")
    return np.asarray(picture).astype(np.int64) @ np.array([1, 256, 65536])
