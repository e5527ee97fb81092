"""A page measured in millimetres: what matplotlib needs to be told so that a figure is fit for a paper.

Text stays text in PDF and SVG, and the same input gives the same bytes: no date, no random ids, no user's matplotlibrc.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextToPath

from ..errors import XaiError
from ..files import write_bytes
from .store import check_formats

FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
SIZE, SMALL, TINY = 8.0, 6.5, 5.5  # points
INCH, POINT = 25.4, 25.4 / 72  # in millimetres
LINE = 1.3  # distance of baselines, in font sizes

_STYLE: Any = {
    "font.size": SIZE,
    "text.parse_math": False,
    "axes.linewidth": 0.4,
    "xtick.major.width": 0.4,
    "xtick.major.size": 1.5,
    "xtick.major.pad": 1.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "xaitools",
}
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
_lock = threading.RLock()


@contextmanager
def style(font: str = FONT) -> Iterator[None]:
    """Our settings and nobody else's inside; they are global in matplotlib, so one thread draws at a time."""
    with _lock, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"font.family": [font, FONT]})
        yield


class Drawing(Figure):
    """A matplotlib Figure whose ``savefig`` writes equal bytes for equal content."""

    font = FONT

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        suffix = Path(fname).suffix[1:] if isinstance(fname, str | Path) else ""
        form = str(kwargs.get("format") or suffix or "png").lower()
        with style(self.font):
            super().savefig(fname, transparent=transparent, **({"metadata": _METADATA.get(form), "dpi": self.dpi} | kwargs))


def figure_bytes(drawing: Figure, form: str, dpi: float | None = None) -> bytes:
    """``drawing`` as png, pdf or svg."""
    check_formats([form])
    buffer = io.BytesIO()
    with style(getattr(drawing, "font", FONT)):
        Figure.savefig(drawing, buffer, format=form, dpi=dpi or drawing.dpi, metadata=_METADATA[form])
    return buffer.getvalue()


def save_figure(drawing: Figure, path: str | Path, dpi: float | None = None) -> None:
    """Writes ``drawing`` as the ``.png``, ``.pdf`` or ``.svg`` that ``path`` ends in, whole or not at all."""
    path = Path(path)
    write_bytes(path, figure_bytes(drawing, path.suffix[1:].lower(), dpi))


class Page:
    """Places axes and text in millimetres from the upper left corner."""

    def __init__(self, width: float, height: float, dpi: int, font: str) -> None:
        self.drawing = Drawing(figsize=(width / INCH, height / INCH), dpi=dpi)
        self.drawing.font = font
        self.width, self.height, self.font = width, height, font

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.drawing.add_axes(place, xticks=[], yticks=[])

    def text(self, x: float, y: float, lines: list[str], size: float = SMALL, **look: Any) -> None:
        """``lines`` below the height ``y``; the first baseline depends on the size alone, so that neighbours align."""
        for number, line in enumerate(lines):
            baseline = y + (0.8 + LINE * number) * size * POINT
            self.drawing.text(x / self.width, 1 - baseline / self.height, line, size=size, va="baseline", **look)

    def fit(self, text: str, width: float, size: float = SMALL, lines: int = 1, weight: str = "normal") -> list[str]:
        return fit(text, width, size, lines, self.font, weight)


def fit(text: str, width: float, size: float, lines: int = 1, font: str = FONT, weight: str = "normal") -> list[str]:
    """``text`` broken into at most ``lines`` lines of ``width`` millimetres, at spaces where possible, else anywhere.

    What is too long ends in an ellipsis; a single line has it in the middle, for names often differ at their end.
    """
    text = " ".join("".join(each if each.isprintable() else " " for each in text[:1000]).split())
    if lines == 1:
        return [_shortened(text, width, size, font, weight)] if text else []
    words, result = text.split(), list[str]()
    while words and len(result) < lines - 1:
        line = words.pop(0)
        while words and extent(f"{line} {words[0]}", size, font, weight) <= width:
            line = f"{line} {words.pop(0)}"
        if extent(line, size, font, weight) > width:
            head = _longest(line, width, size, font, weight)
            words.insert(0, line[len(head) :])
            line = head
        result.append(line)
    rest = " ".join(words)
    if extent(rest, size, font, weight) > width:
        rest = f"{_longest(rest, width - extent('…', size, font, weight), size, font, weight).rstrip()}…"
    return [*result, rest] if rest else result


def _shortened(text: str, width: float, size: float, font: str, weight: str) -> str:
    kept, line = len(text), text
    while kept > 2 and extent(line, size, font, weight) > width:
        kept -= 1
        line = f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
    return line


def _longest(word: str, width: float, size: float, font: str, weight: str) -> str:
    length = len(word)
    while length > 1 and extent(word[:length], size, font, weight) > width:
        length -= 1
    return word[:length]


@lru_cache(maxsize=4096)
def extent(text: str, size: float, font: str = FONT, weight: str = "normal") -> float:
    """Width of ``text`` in millimetres."""
    font_properties = font_manager.FontProperties(family=[font, FONT], size=size, weight=weight)
    return TextToPath().get_text_width_height_descent(text, font_properties, ismath=False)[0] * POINT


def check_font(font: str) -> None:
    try:
        font_manager.findfont(font_manager.FontProperties(family=font), fallback_to_default=False)
    except ValueError:
        some = sorted({entry.name for entry in font_manager.fontManager.ttflist})
        raise XaiError(f"font {font!r} is not installed; installed are {', '.join(some[:12])}{', ...' if len(some) > 12 else ''}") from None
