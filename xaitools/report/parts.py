"""Parts of our pages: tables, numbers in words, interval plots.  Words from outside pass through ``e`` before they get here."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from .page_style import STYLE

Facts = Mapping[str, Any]
Scale = tuple[float, float]

PLOT = 240
"""Width of an interval plot in CSS pixels."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: Iterable[str]) -> str:
    """A whole page that loads nothing and runs nothing."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{e(title)}</title><style>{STYLE}</style></head><body><main>
{"".join(f"{each}{chr(10)}" for each in body if each)}</main></body></html>
"""


def e(text: Any) -> str:
    """
    >>> e("<b>")
    '&lt;b&gt;'
    """
    return escape(str(text), quote=True)


def title(kind: str, name: str, dataset: str) -> str:
    return f'<header><p class="kind">{e(kind)}</p><h1>{e(name)}</h1><p class="on">on {e(dataset)}</p></header>'


def section(heading: str, *content: str, look: str = "", anchor: str = "") -> str:
    marks = (f' class="{look}"' if look else "") + (f' id="{anchor}"' if anchor else "")
    return f"<section{marks}><h2>{e(heading)}</h2>{''.join(content)}</section>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str] | str], right: Collection[int] = (), look: str = "") -> str:
    """A table of cells that are HTML already; a row that is one string is a heading across.  ``right``: columns of numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = [' class="n"' if column in right else "" for column in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{mark}>{cell}</{tag}>' for cell, mark in zip(cells, marks, strict=True))}</tr>"

    body = "".join(
        f'<tr class="group"><th colspan="{len(heads)}">{row}</th></tr>' if isinstance(row, str) else line(row, "td") for row in rows
    )
    return f'<div class="wide"><table class="{look}"><thead>{line(heads, "th")}</thead><tbody>{body}</tbody></table></div>'


def items(words: Iterable[str]) -> str:
    return "".join(f"<li>{e(each)}</li>" for each in words)


def warnings(words: Sequence[str]) -> str:
    return section("Before you conclude anything", f"<ul>{items(words)}</ul>", look="warn") if words else ""


def value(number: float | None) -> str:
    return "undefined" if number is None else f"{number:.3f}"


def points(drop: float | None) -> str:
    """A fraction in hundredths.

    >>> points(0.1234), points(0.0), points(-0.0001), points(None)
    ('12.3', '0', '0.0', 'undefined')
    """
    if drop is None:
        return "undefined"
    return "0" if drop == 0 else _minus(f"{100 * drop:.1f}")


def interval(ci: Sequence[float] | None) -> str:
    """
    >>> interval([0.5, 0.6])
    '[0.500, 0.600]'
    """
    return "" if ci is None else f"[{ci[0]:.3f}, {ci[1]:.3f}]"


def points_interval(ci: Sequence[float] | None) -> str:
    return "" if ci is None else _minus(f"[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]")


def p_value(p: float | None) -> str:
    return "" if p is None else "\N{LESS-THAN OR EQUAL TO} 0.001" if p <= 0.001 else f"{p:.3f}"


def _minus(text: str) -> str:
    return re.sub(r"-(?!0\.0\b)", "\N{MINUS SIGN}", text).replace("-", "")


# ---- plots -----------------------------------------------------------------------------------------------------


def scale_of(cells: Iterable[Facts]) -> Scale:
    """Ends of a common axis in points: 0 lies within, and it is at least 10 wide."""
    ends = [100 * end for cell in cells if cell["drop"] is not None for end in (cell["drop"], *(cell["ci"] or ()))]
    low, high = min([0.0, *ends]), max([10.0, *ends])
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def axis(scale: Scale) -> str:
    step = next(step for step in (5, 10, 20, 50, 100) if (scale[1] - scale[0]) / step <= 6)
    ticks = [tick for tick in range(-200, 201, step) if scale[0] <= tick <= scale[1]]
    labels = "".join(f'<text x="{_x(tick, scale):.1f}" y="11" text-anchor="middle">{_minus(str(tick))}</text>' for tick in ticks)
    return f'<svg class="axis" width="{PLOT}" height="14" viewBox="0 0 {PLOT} 14" role="img" aria-label="points">{labels}</svg>'


def plot(found: Facts, scale: Scale, look: str) -> str:
    """A bar from 0 to the drop with its interval; ``look`` is cue or other."""
    zero = _x(0, scale)
    marks = ""
    if found["drop"] is not None:
        left, right = sorted((zero, _x(100 * found["drop"], scale)))
        marks = f'<rect class="{look}" x="{left:.1f}" width="{right - left:.1f}" y="5" height="10"/>'
    if found["drop"] is not None and found["ci"] is not None:
        low, high = (_x(100 * end, scale) for end in found["ci"])
        marks += f'<path class="ci" d="M{low:.1f} 6v8M{low:.1f} 10H{high:.1f}M{high:.1f} 6v8"/>'
    words = f"drop {points(found['drop'])} points {points_interval(found['ci'])}"
    return (
        f'<svg width="{PLOT}" height="20" viewBox="0 0 {PLOT} 20" role="img" aria-label="{e(words)}">{marks}'
        f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="20"/></svg>'
    )


def _x(at: float, scale: Scale) -> float:
    return PLOT * (at - scale[0]) / (scale[1] - scale[0])


def data_uri(png: bytes) -> str:
    """A picture as part of the page; JPEG where that is smaller."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    kind, data = min(("png", png), ("jpeg", buffer.getvalue()), key=lambda each: len(each[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
