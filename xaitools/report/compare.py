"""Accuracy against cost: Canziani et al. 2017 draw operations with points as large as their parameters, Hernandez &
Brown 2020 the compute of training.  One panel a task and dataset; figure and tables are functions of compare.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..errors import XaiError
from .colours import CLASSES
from .page import FONT, LINE, POINT, SIZE, SMALL, Drawing, Page, extent, figure_bytes, style
from .store import FORMATS, check_formats, claimed, replace_files
from .tables import csv_table, markdown_table, number, text_table

DOCUMENT, TABLE, SHEET = "compare.json", "compare.md", "compare.csv"
AXES = {"gflops": "operations for one image (GFLOP)", "train_petaflop": "operations of training (PFLOP)"}
SAID = {
    "gflops": "Operations of one prediction as torch counts them, a multiply-add as 2",
    "train_petaflop": "Operations of training are an estimate, 3 x forward operations x images x epochs",
}
FIGURES = {"gflops": "figure", "train_petaflop": "efficiency"}

MARGIN, TEXT = 2.0, LINE * SMALL * POINT
TITLE = LINE * SIZE * POINT + TEXT + 1.0
LEFT, RIGHT, BELOW, HEIGHT = 11.0, 2.0, 9.0, 52.0
"""Millimetres around and of a panel."""

LARGEST, LEAST = 4.0, 0.7
"""Radius of the model with most parameters, and of the smallest point that can still be seen."""

INK = "0.15"
Facts = Mapping[str, Any]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in millimetres."""


def compare_figure(document: Facts, x: str = "gflops", *, width_mm: float = 180.0, dpi: int = 300) -> Drawing:
    """Accuracy with its 95 % interval (upward is better) against ``x``, gflops or train_petaflop, on a logarithmic axis.

    The area of a point is proportional to the model's parameters, hollow where they are unknown.  A model without a
    value or without ``x`` is named below the panels.  Raises XaiError where that is all of them.
    """
    if x not in AXES:
        raise XaiError(f"axis {x!r}; expected {' or '.join(AXES)}")
    rows = [row for row in document["rows"] if row["value"] is not None and row[x]]
    if not rows:
        raise XaiError(f"none of {len(document['rows'])} models has both a value and {x}; there is nothing to draw")
    panels: dict[tuple[str, str], list[Facts]] = {}
    for row in rows:
        panels.setdefault((row["task"], row["dataset"]), []).append(row)
    colours = {row["model"]: CLASSES[place % len(CLASSES)] for place, row in enumerate(document["rows"])}
    most = max((row["parameters"] or 0 for row in rows), default=0)
    columns = min(len(panels), max(1, int((width_mm - 2 * MARGIN) / 58)))
    lines, cell = math.ceil(len(panels) / columns), (width_mm - 2 * MARGIN) / columns
    ends = _ends([row[x] for row in rows])
    absent = [row["model"] for row in document["rows"] if row not in rows]
    with style(FONT):
        key = 2 * LARGEST + 1
        height = 2 * MARGIN + lines * (TITLE + HEIGHT + BELOW) + key + TEXT * (1 + bool(absent))
        page = Page(width_mm, height, dpi, FONT)
        for place, ((task, dataset), members) in enumerate(panels.items()):
            down, across = divmod(place, columns)
            corner = (MARGIN + across * cell, MARGIN + down * (TITLE + HEIGHT + BELOW))
            _panel(page, corner, cell, (task, dataset), members, (x, *ends), colours, most)
        y = MARGIN + lines * (TITLE + HEIGHT + BELOW)
        _key(page, y, most)
        told = [f"{SAID[x]}; bars are 95 % intervals, areas are proportional to parameters."]
        if absent:
            told.append(f"Not drawn, for want of a value or of its operations: {', '.join(absent)}")
        page.text(MARGIN, y + key, [page.fit(each, width_mm - 2 * MARGIN)[0] for each in told])
        return page.drawing


def _panel(
    page: Page, corner: tuple[float, float], cell: float, title: tuple[str, str], rows: Sequence[Facts], axis: tuple[str, float, float],
    colours: Mapping[str, str], most: int,
) -> None:  # fmt: skip
    (x, low, high), left, top, width = axis, corner[0] + LEFT, corner[1] + TITLE, cell - LEFT - RIGHT
    page.text(left, corner[1], page.fit(title[0], width, SIZE), SIZE)
    page.text(left, corner[1] + TITLE - TEXT - 1, page.fit(title[1], width), color="0.35")
    ax = page.axes(left, top, width, HEIGHT)
    bottom, up = _span([end for row in rows for end in (row["value"], *(row["ci"] or ()))])
    ax.set(xscale="log", xlim=(low, high), ylim=(bottom, up))
    _ticks(ax, high / low)
    ax.set_ylabel(rows[0]["metric"], size=SMALL, labelpad=2)
    ax.set_xlabel(AXES[x], size=SMALL, labelpad=1.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.92", linewidth=0.4)
    ax.set_axisbelow(True)

    def spot(row: Facts) -> tuple[float, float]:
        """In millimetres from the panel's upper left corner."""
        return (
            width * math.log(row[x] / low) / math.log(high / low),
            HEIGHT * (1 - (row["value"] - bottom) / (up - bottom)),
        )

    for row in sorted(rows, key=lambda row: -(row["parameters"] or 0)):
        if row["ci"] is not None:
            ax.plot([row[x], row[x]], row["ci"], color=colours[row["model"]], linewidth=0.8, solid_capstyle="butt", zorder=2)
        _circle(page, ax, (left + spot(row)[0], top + spot(row)[1]), _radius(row["parameters"], most), colours[row["model"]],
                hollow=row["parameters"] is None)  # fmt: skip
    taken = [_around(*spot(row), _radius(row["parameters"], most)) for row in rows]
    taken += [_bar(spot(row), [HEIGHT * (1 - (end - bottom) / (up - bottom)) for end in row["ci"]]) for row in rows if row["ci"]]
    for row in sorted(rows, key=lambda row: spot(row)[1]):
        label = page.fit(row["model"], width - 2)[0]
        box = _place(spot(row), _radius(row["parameters"], most), extent(label, SMALL, page.font) + 0.4, taken, (width, HEIGHT))
        taken.append(box)
        page.text(left + box[0], top + box[1], [label], color=INK)


def _place(spot: tuple[float, float], radius: float, wide: float, taken: Sequence[Box], size: tuple[float, float]) -> Box:
    """Where a label covers least: beside its point if that is free, else further off, inside the panel."""
    best: tuple[float, Box] | None = None
    for rank, (x, y) in enumerate(_offers(spot, radius, wide)):
        x, y = min(max(x, 0.3), max(0.3, size[0] - wide)), min(max(y, 0.0), size[1] - TEXT)
        box = (x, y, x + wide, y + TEXT)
        cost = sum(_shared(box, each) for each in taken) + 0.02 * rank
        if best is None or cost < best[0]:
            best = (cost, box)
    assert best is not None
    return best[1]


def _offers(spot: tuple[float, float], radius: float, wide: float) -> Iterator[tuple[float, float]]:
    x, y = spot
    for step in range(8):
        far = radius + 0.9 + 1.2 * step
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            reach = far * (0.75 if across and down else 1)
            yield (
                x + across * reach - (0 if across > 0 else wide if across < 0 else wide / 2),
                y + down * reach - (0 if down > 0 else TEXT if down < 0 else TEXT / 2),
            )


def _shared(one: Box, other: Box) -> float:
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _bar(spot: tuple[float, float], ends: Sequence[float]) -> Box:
    return spot[0] - 0.3, min(ends), spot[0] + 0.3, max(ends)


def _circle(page: Page, ax: Axes, centre: tuple[float, float], radius: float, colour: str, hollow: bool) -> None:
    """At a place of the page, so that it is round whatever the axes are."""
    x, y = centre[0] / page.width, 1 - centre[1] / page.height
    look: dict[str, Any] = {"facecolor": "none"} if hollow else {"facecolor": colour, "alpha": 0.55}
    ax.add_patch(
        Ellipse((x, y), 2 * radius / page.width, 2 * radius / page.height, transform=page.drawing.transFigure, edgecolor=colour,
                linewidth=0.6, clip_on=False, zorder=3, **look)
    )  # fmt: skip


def _radius(parameters: int | None, most: int) -> float:
    return LEAST if not parameters or not most else max(LEAST, LARGEST * math.sqrt(parameters / most))


def _key(page: Page, y: float, most: int) -> None:
    """Circles of round numbers of parameters."""
    if not most:
        return
    ax = page.axes(0, y, page.width, 2 * LARGEST + 1)
    ax.set_axis_off()
    x, middle = MARGIN, y + LARGEST + 0.5
    page.text(x, middle - TEXT / 2, ["parameters"])
    x += extent("parameters", SMALL, page.font) + 3
    for count in _round_numbers(most):
        radius = _radius(count, most)
        _circle(page, ax, (x + radius, middle), radius, "0.45", hollow=False)
        label = _many(count)
        page.text(x + 2 * radius + 1, middle - TEXT / 2, [label])
        x += 2 * radius + 1 + extent(label, SMALL, page.font) + 4


def _round_numbers(most: int) -> list[int]:
    """The largest of 1, 2, 5, 10, ... up to ``most``, and a quarter and a sixteenth of it or nearly so."""
    steps = [factor * 10**power for power in range(13) for factor in (1, 2, 5)]
    found = [max((step for step in steps if step <= share), default=0) for share in (most / 20, most / 5, most)]
    return sorted({count for count in found if count})


def _many(count: float) -> str:
    """
    >>> _many(1577947), _many(20000), _many(600), _many(2 * 10**9)
    ('1.58 M', '20 k', '600', '2 G')
    """
    for unit, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return f"{count:g}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of a logarithmic axis, the same for all panels; at least a factor of ten wide."""
    low, high = min(values), max(values)
    middle, half = math.sqrt(low * high), max(math.sqrt(10), 1.7 * math.sqrt(high / low))
    return middle / half, middle * half


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with room at both sides; at least a tenth wide."""
    low, high = min(values), max(values)
    room = max(0.12 * (high - low), 0.05)
    return low - room, high + room


def _ticks(ax: Axes, span: float) -> None:
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if span < 200 else (1,), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.tick_params(labelsize=SMALL, width=0.4, length=1.5, pad=1.2)


# ---- tables ----------------------------------------------------------------------------------------------------

HEADS = ("model", "task", "dataset", "metric", "value [95 % interval]", "n", "image", "GFLOP", "parameters", "memory MB", "latency ms",
         "x first", "training PFLOP")  # fmt: skip
LEFT_COLUMNS = (0, 1, 2, 3)
FIELDS = ("model", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "image_height", "image_width", "gflops", "parameters",
          "memory_mb", "latency_ms", "latency_ratio", "latency_n", "train_petaflop")  # fmt: skip


def table_text(document: Facts) -> str:
    """For the terminal: without the columns that are the same for all models, which stand above."""
    cells = [_cells(row) for row in document["rows"]]
    same = [column for column in (1, 2, 3) if len(cells) > 1 and len({row[column] for row in cells}) == 1]
    kept = [column for column in range(len(HEADS)) if column not in same]
    head = "".join(f"{HEADS[column]} {cells[0][column]}  " for column in same).rstrip()
    left = [place for place, column in enumerate(kept) if column in LEFT_COLUMNS]
    table = text_table([HEADS[c] for c in kept], [[row[c] for c in kept] for row in cells], left)
    return f"{head}\n{table}" if head else table


def table_markdown(document: Facts) -> str:
    told = document["measured"]
    said = (
        f"Operations are counted by torch {told['torch']}, a multiply-add is 2. Memory: {told['memory']}. Latency: median of "
        f"{told['rounds']} rounds in which all models ran in turn, one image at a time, on {', '.join(told['device'])} with "
        f"{told['threads']} threads; the ratio is the median of the ratios of a round. {SAID['train_petaflop']}."
    )
    return f"{markdown_table(HEADS, [_cells(row) for row in document['rows']], LEFT_COLUMNS)}\n\n{said}\n"


def table_csv(document: Facts) -> str:
    rows = []
    for row in document["rows"]:
        low, high = row["ci"] or (None, None)
        flat = {**row, "ci_low": low, "ci_high": high, "image_height": row["image_size"][0], "image_width": row["image_size"][1]}
        rows.append([flat[field] for field in FIELDS])
    return csv_table(FIELDS, rows)


def _cells(row: Facts) -> list[str]:
    ci = f" [{row['ci'][0]:.3f}, {row['ci'][1]:.3f}]" if row["ci"] else ""
    return [
        row["model"], row["task"], row["dataset"] or "-", row["metric"] or "-", number(row["value"]) + ci, str(row["n"] or "-"),
        f"{row['image_size'][0]} x {row['image_size'][1]}", number(row["gflops"], ".3g"),
        "undefined" if row["parameters"] is None else f"{row['parameters']:,}", number(row["memory_mb"], ".1f"),
        number(row["latency_ms"], ".1f"), number(row["latency_ratio"], ".2f"), number(row["train_petaflop"], ".3g"),
    ]  # fmt: skip


# ---- files -----------------------------------------------------------------------------------------------------


def claim(out: str | Path) -> Path:
    """``out`` as a folder that may be written: new, empty, or holding nothing but an earlier comparison."""
    ours = {TABLE, SHEET, *(f"{name}.{form}" for name in FIGURES.values() for form in FORMATS)}
    return claimed(out, DOCUMENT, ours, "a comparison")


def save_compare(document: Facts, out: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes compare.json, compare.md, compare.csv, figure.<format>, and efficiency.<format> where training is known.

    Raises PlanError when ``out`` holds anything else than an earlier comparison, which is replaced.
    """
    folder, forms = claim(out), check_formats(formats)
    files = {TABLE: table_markdown(document).encode(), SHEET: table_csv(document).encode()}
    for x, name in FIGURES.items():
        if any(row["value"] is not None and row[x] for row in document["rows"]):
            drawing = compare_figure(document, x)
            files |= {f"{name}.{form}": figure_bytes(drawing, form) for form in forms}
    return replace_files(folder, DOCUMENT, document, files)
