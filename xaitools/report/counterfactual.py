"""What classes lose when others are taken out, as tables and a matrix; all are functions of counterfactual.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from ..files import write_bytes, write_json
from .colours import map_rgb
from .page import FONT, LINE, POINT, SIZE, SMALL, TINY, Drawing, Page, figure_bytes, style
from .parts import e, points, section, table
from .tables import csv_table, markdown_table, number, text_table

DOCUMENT, TABLE, SHEET, FIGURE = "counterfactual.json", "counterfactual.md", "counterfactual.csv", "figure"

FEW = 10
"""Below so many images a number is not bold."""

SHOWN = 20
"""Rows and columns of classes that the figure has room for: those seen in most images."""

CELL, TALL, LEFT, HEAD, GAP, MARGIN = 18.0, 11.5, 26.0, 8.5, 2.0, 2.0
"""Millimetres: a cell, its height, names of the rows, names of the columns, before what is no class, around."""

LEAST = 120.0
"""Least width in millimetres, for the words below."""

BESIDE = ("background", "control")
DARK = 0.5
"""Brightness of a cell below which its text is white."""

Facts = Mapping[str, Any]


def counterfactual_figure(document: Facts, *, dpi: int = 300) -> Drawing:
    """A row for each class that is explained, a column for each that is taken out, then background and control.

    A cell has the mean fall of the score, its 95 % interval and the number of images; red is a fall, blue a rise.  The
    colours end where those of the classes do.
    """
    cells = {(row["explained"], row["removed"]): row for row in document["rows"]}
    rows, columns = _shown(document, "explained"), _shown(document, "removed")
    limit = max((abs(row["fall"]) for row in cells.values() if row["fall"] is not None and row["removed"] != "background"), default=0.0)
    limit = limit or max((abs(row["fall"]) for row in cells.values() if row["fall"] is not None), default=0.0)
    places = [CELL * place for place in range(len(columns))] + [CELL * len(columns) + GAP + CELL * place for place in range(2)]
    across, down = places[-1] + CELL, TALL * len(rows)
    width = max(LEAST, MARGIN + LEFT + across + MARGIN)
    words = _words(document, limit, len(rows), len(columns))
    with style(FONT):
        page = Page(width, MARGIN + HEAD + down + 3 + len(words) * LINE * SMALL * POINT + MARGIN, dpi, FONT)
        page.text(MARGIN, MARGIN + HEAD - 1 - LINE * SMALL * POINT, ["explained, without"], color="0.35")
        for name, x in zip((*columns, *BESIDE), places, strict=True):
            lines = page.fit(name, CELL - 1, SMALL, 2)
            y = MARGIN + HEAD - 1 - len(lines) * LINE * SMALL * POINT
            page.text(MARGIN + LEFT + x + CELL / 2, y, lines, ha="center", style="italic" if name in BESIDE else "normal")
        ax = page.axes(MARGIN + LEFT, MARGIN + HEAD, across, down)
        ax.set(xlim=(0, across), ylim=(down, 0))
        ax.spines[:].set_visible(False)
        for place, name in enumerate(rows):
            page.text(MARGIN + LEFT - 1.5, MARGIN + HEAD + TALL * (place + 0.5) - 1.2, page.fit(name, LEFT - 2), ha="right")
            for other, x in zip((*columns, *BESIDE), places, strict=True):
                _cell(page, ax, cells.get((name, other)), (x, TALL * place), limit, own=name == other)
        page.text(MARGIN, MARGIN + HEAD + down + 3, [line for word in words for line in page.fit(word, width - 2 * MARGIN)])
        return page.drawing


def _cell(page: Page, ax: Any, cell: Facts | None, corner: tuple[float, float], limit: float, *, own: bool) -> None:
    x, y = corner
    fall = None if cell is None else cell["fall"]
    colour = map_rgb(np.array([[0.0 if fall is None else fall]]), limit)[0, 0] / 255
    ax.add_patch(Rectangle((x, y), CELL, TALL, facecolor=colour, edgecolor="0.8", linewidth=0.4))
    left, top = MARGIN + LEFT + x + CELL / 2, MARGIN + HEAD + y
    if cell is None or fall is None:
        page.text(left, top + TALL / 2 - 1.2, ["" if own else "–"], color="0.6", ha="center")
        return
    ink = "1" if colour @ (0.299, 0.587, 0.114) < DARK else "0.1"
    soft = ink if ink == "1" else "0.2"
    weight = "bold" if cell["images"] >= FEW else "normal"
    page.text(left, top + 1.0, [_short(fall, limit)], SIZE, color=ink, ha="center", weight=weight)
    page.text(left, top + 4.9, [_interval(cell["ci"], limit)], TINY, color=soft, ha="center")
    page.text(left, top + 7.8, [f"n {cell['images']}"], TINY, color=soft, ha="center")


def _interval(ci: Sequence[float] | None, limit: float) -> str:
    return "" if ci is None else f"{_short(ci[0], limit)} to {_short(ci[1], limit)}"


def _short(value: float, limit: float) -> str:
    """As many places as tell values up to ``limit`` apart, at least one and at most four."""
    places = 2 if 0.1 <= limit < 10 else 1 if limit else 2
    if 0 < limit < 0.1:
        places = min(4, 1 - math.floor(math.log10(limit)))
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _shown(document: Facts, key: str) -> list[str]:
    """The classes in rows or columns that there is room for, in the document's order."""
    names = [name for name in document[key] if name not in BESIDE or key == "explained"]
    seen = {name: sum(row["images"] for row in document["rows"] if row[key] == name) for name in names}
    kept = sorted(names, key=lambda name: -seen[name])[:SHOWN]
    return [name for name in names if name in kept]


def _words(document: Facts, limit: float, rows: int, columns: int) -> list[str]:
    left_out = len(document["explained"]) - rows + len(document["removed"]) - len(BESIDE) - columns
    return [
        _head(document),
        f"mean fall of the {document['score']}, its 95 % interval and the number n of images; bold from {FEW} images on",
        f"red falls, blue rises, colours end at {limit:.3g}; background: all that no object covers, in its mean colour",
        "control: shapes of the removed objects painted over where no object is, which is what painting alone costs",
        *([f"{left_out} more rows and columns stand in the tables"] if left_out else []),
    ]


def _head(document: Facts) -> str:
    return f"{document['model']} on {document['dataset']}: {document['objects']} right decisions in {document['n']} images"


def rows_of(document: Facts) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a line for each pair that is seen together."""
    heads = ["explained", "without", "fall", "95 % interval", "still found, fall", "control", "beyond control", "images", "objects"]
    cells = []
    for row in document["rows"]:
        if row["fall"] is None and not row["undefined"]:
            continue
        weak = "" if row["images"] >= FEW else " *"
        cells.append(
            [row["explained"], row["removed"], number(row["fall"]), _span(row["ci"]), number(row["found"]),
             "-" if row["control"] is None else number(row["control"]),
             "-" if row["beyond"] is None else f"{number(row['beyond'])} ({_span(row['beyond_ci'])})", f"{row['images']}{weak}",
             str(row["objects"])]
        )  # fmt: skip
    return heads, cells


def _span(ci: Sequence[float] | None) -> str:
    return "-" if ci is None else f"{ci[0]:.3f} to {ci[1]:.3f}"


def table_text(document: Facts) -> str:
    heads, cells = rows_of(document)
    told = f"{_head(document)}; {document['score']}; * marks fewer than {FEW} images, which are weak"
    return f"{told}\n{text_table(heads, cells, left=(0, 1))}"


def counterfactual_section(found: Facts) -> str:
    """A section of a page, of an audit's "counterfactual"."""
    if not found["rows"]:
        return section("Without one another", f"<p><small>Not measured: {e(found['note'])}.</small></p>") if found["note"] else ""
    said = (
        f"What is right of a class ({found['objects']} decisions in {found['n']} images), and how much of it goes when all objects of "
        f"another class are painted over: the mean fall of the {found['score']}, and of how much is still found, in points. Control: the "
        "same shapes painted over where no object is. Bold where the interval of the fall less the control leaves out 0."
    )
    rows = []
    for row in found["rows"]:
        sure = row["beyond_ci"] is not None and not row["beyond_ci"][0] <= 0 <= row["beyond_ci"][1]
        fall = "undefined" if row["fall"] is None else f"{row['fall']:.2f}"
        spread = "" if row["ci"] is None else f"<br><small>[{row['ci'][0]:.2f}, {row['ci'][1]:.2f}]</small>"
        still = points(row["found"])
        control = "" if row["control"] is None else f"{row['control']:.2f}"
        images = f"{row['images']}{'' if row['images'] >= FEW else ' *'}"
        rows.append([e(row["explained"]), e(row["removed"]), f"{f'<b>{fall}</b>' if sure else fall}{spread}", still, control, images])
    heads = ["class", "without", "fall", "found, points", "control", "images"]
    return section(
        "Without one another", f"<p>{e(said)}</p>", table(heads, rows, right={2, 3, 4, 5}),
        f"<p><small>* fewer than {FEW} images, which is weak.</small></p>" if any(row["images"] < FEW for row in found["rows"]) else "",
    )  # fmt: skip


def save_counterfactual(document: Facts, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes the tables, the figure and counterfactual.json, which comes last, into the folder; gives their paths."""
    heads, cells = rows_of(document)
    drawing = counterfactual_figure(document)
    files = {TABLE: markdown_table(heads, cells, left=(0, 1)).encode(), SHEET: csv_table(*_sheet(document)).encode()}
    files |= {f"{FIGURE}.{each}": figure_bytes(drawing, each) for each in formats}
    for name, content in files.items():
        write_bytes(out / name, content)
    write_json(out / DOCUMENT, document)
    return [out / name for name in (DOCUMENT, *files)]


def _sheet(document: Facts) -> tuple[list[str], list[list[object]]]:
    heads: list[str] = []
    rows: list[list[object]] = []
    for row in document["rows"]:
        flat: dict[str, object] = {}
        for key, value in row.items():
            if key == "ci" or key.endswith("_ci"):
                flat |= {f"{key}_low": value and value[0], f"{key}_high": value and value[1]}
            else:
                flat[key] = value
        heads = list(flat)
        rows.append(list(flat.values()))
    return heads, rows
