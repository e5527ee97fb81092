"""One picture on the page: with boxes or a colour layer on it, a colour bar under it, and clicks that come back.

Streamlit's own image takes no clicks and plotly's selection returns nothing on images.  What comes back is
``{"x", "y"}`` of a clicked pixel or ``{"box": [x1, y1, x2, y2]}`` of a drawn box, both in pixels of the original
picture, or ``{"target"}`` of a chip.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

COARSE = 256
"""Pictures with fewer pixels on a side are shown with their pixels, not blurred."""

_HERE = Path(__file__).parent
_mount = st.components.v2.component("picture", **{kind: (_HERE / f"picture.{kind}").read_text() for kind in ("html", "css", "js")})


@dataclass(frozen=True)
class Box:
    """``label`` is drawn at the box, ``name`` is read out under the pointer."""

    xyxy: tuple[float, ...]
    name: str
    label: str
    colour: str
    ink: str = "#000000"
    chosen: bool = False


@dataclass(frozen=True)
class Chip:
    """A small button under the picture that chooses ``target``."""

    label: str
    target: str
    colour: str
    chosen: bool = False


@dataclass(frozen=True)
class Bar:
    """Colours from left to right and the words at their ends."""

    low: str
    high: str
    colours: tuple[str, ...]


def picture(
    rgb: np.ndarray,
    *,
    key: str,
    alt: str,
    hint: str = "",
    layer: np.ndarray | None = None,
    boxes: Sequence[Box] = (),
    chips: Sequence[Chip] = (),
    point: tuple[int, int] | None = None,
    bar: Bar | None = None,
    draws: bool = False,
    on_pick: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Shows ``rgb`` (H, W, 3) uint8 as wide as its column, under a ``layer`` (H, W, 4) if there is one.

    ``on_pick`` is called before the page is drawn anew; without it the picture is only looked at.  With the keyboard: arrows
    move, Enter picks.
    """
    height, width = rgb.shape[:2]
    data = {
        "image": address(rgb), "layer": None if layer is None else address(layer), "width": width, "height": height,
        "coarse": max(height, width) < COARSE, "alt": alt, "hint": hint, "draws": draws, "point": point,
        "help": f"{alt} Arrow keys move the cross, Enter picks the place." if on_pick else alt, "still": on_pick is None,
        "boxes": [asdict(box) for box in boxes], "chips": [asdict(chip) for chip in chips], "bar": bar and asdict(bar),
    }  # fmt: skip

    def picked() -> None:
        if on_pick and (value := st.session_state[key].get("pick")):
            on_pick(value)

    _mount(key=key, data=data, on_pick_change=picked)


def address(pixels: np.ndarray) -> str:
    """The picture as a data address: PNG where every pixel counts, JPEG for a large photograph."""
    buffer = io.BytesIO()
    if pixels.shape[2] == 3 and max(pixels.shape[:2]) >= 2 * COARSE:
        kind = "jpeg"
        Image.fromarray(pixels).save(buffer, kind, quality=92, subsampling=0)
    else:
        kind = "png"
        Image.fromarray(pixels).save(buffer, kind, compress_level=3)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
