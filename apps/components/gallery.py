"""Many small pictures on the page, each a link; what comes back is the number of the one that was clicked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from .picture import address

_HERE = Path(__file__).parent
_mount = st.components.v2.component("gallery", **{kind: (_HERE / f"gallery.{kind}").read_text() for kind in ("html", "css", "js")})


@dataclass(frozen=True, eq=False)
class Tile:
    """``pictures`` are (H, W, 3) uint8 with the words that stand for them; ``href`` is where the link leads in a tab of its own."""

    number: int
    name: str
    href: str
    pictures: Sequence[tuple[np.ndarray, str]]
    line: str = ""
    wrong: str = ""


def gallery(tiles: Sequence[Tile], *, key: str, coarse: bool, on_open: Callable[[int], None]) -> None:
    """Shows ``tiles`` side by side, as many as fit; ``on_open`` is called before the page is drawn anew."""
    data = {
        "coarse": coarse,
        "tiles": [
            {"number": tile.number, "name": tile.name, "href": tile.href, "line": tile.line, "wrong": tile.wrong,
             "pictures": [{"source": address(pixels), "alt": alt} for pixels, alt in tile.pictures]}
            for tile in tiles
        ],
    }  # fmt: skip

    def opened() -> None:
        if (number := st.session_state[key].get("open")) is not None:
            on_open(int(number))

    _mount(key=key, data=data, on_open_change=opened)
