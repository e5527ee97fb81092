"""Assessments of methods as a table and a figure; both are functions of assess.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from ..files import write_bytes, write_json, write_text
from .colours import CLASSES
from .page import FONT, SIZE, SMALL, Drawing, Page, figure_bytes, style
from .tables import csv_table, markdown_table, number, text_table

DOCUMENT, TABLE, SHEET, FIGURE = "assess.json", "assess.md", "assess.csv", "figure"

SAID = {
    "deletion": "score left while the strongest pixels go",
    "insertion": "score while they come back first",
    "pointing": "strongest pixel on the target",
    "mass_gain": "positive relevance on it, over chance",
    "rank_gain": "strongest pixels on it, over chance",
    "target_sensitivity": "change with another target",
    "model_randomisation": "change with shuffled weights",
}
LEFT, ROW, PANEL, GAP, MARGIN, HEAD = 38.0, 5.0, 52.0, 6.0, 2.0, 13.0
"""Millimetres: names of the methods, a row, a panel, what lies between panels, around, and above each."""

INK, RANDOM, EDGE = "0.15", "0.55", "0.55"
Facts = Mapping[str, Any]


def assess_figure(document: Facts, *, dpi: int = 300) -> Drawing:
    """One panel a measure: each method's mean with its 95 % interval, beside what random numbers and edges reach."""
    methods = list(dict.fromkeys(row["method"] for row in document["rows"]))
    measures = [name for name in SAID if any(row["measure"] == name and row["value"] is not None for row in document["rows"])]
    across = 2
    lines = -(-len(measures) // across)
    tall = ROW * len(methods)
    with style(FONT):
        width = 2 * MARGIN + LEFT + across * PANEL + (across - 1) * GAP
        page = Page(width, 2 * MARGIN + lines * (HEAD + tall + 7) + 8, dpi, FONT)
        for place, measure in enumerate(measures):
            down, column = divmod(place, across)
            rows = {row["method"]: row for row in document["rows"] if row["measure"] == measure}
            x, y = MARGIN + LEFT + column * (PANEL + GAP), MARGIN + down * (HEAD + tall + 7)
            _panel(page, (x, y), [rows[name] for name in methods], tall, names=column == 0)
        told = f"{document['model']} on {document['dataset']}: {document['cases']} right decisions in {document['n']} images"
        foot = MARGIN + lines * (HEAD + tall + 7) + 1
        page.text(MARGIN, foot, page.fit(told, width - 2 * MARGIN))
        page.text(
            MARGIN, foot + 3.4, page.fit("bars are 95 % intervals; dashed: random numbers, dotted: edges of the image", width - 2 * MARGIN)
        )
        return page.drawing


def _panel(page: Page, corner: tuple[float, float], rows: Sequence[Facts], tall: float, *, names: bool) -> None:
    x, y = corner
    better = "lower is better" if rows[0]["better"] == "lower" else "higher is better"
    page.text(x, y, page.fit(rows[0]["measure"].replace("_", " "), PANEL, SIZE), SIZE)
    page.text(x, y + 4.2, page.fit(f"{SAID[rows[0]['measure']]}; {better}", PANEL, lines=2), color="0.35")
    ax = page.axes(x, y + HEAD, PANEL, tall)
    for baseline, dash in (("random", (0, (4, 2))), ("edge", (0, (1, 1.5)))):
        if rows[0][baseline] is not None:
            ax.axvline(rows[0][baseline], color="0.45", linewidth=0.9, linestyle=dash)
    for place, row in enumerate(rows):
        if row["value"] is None:
            continue
        colour = CLASSES[place % len(CLASSES)]
        ax.plot([row["value"]], [place], "o", color=colour, markersize=3.2)
        if row["ci"] is not None:
            ax.plot(row["ci"], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
    ax.set(ylim=(len(rows) - 0.5, -0.5), yticks=[])
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(axis="x", labelsize=SMALL, length=2, pad=1.5)
    ax.margins(x=0.08)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if names:
        for place, row in enumerate(rows):
            page.text(MARGIN, y + HEAD + ROW * (place + 0.5) - 1.4, page.fit(row["method"], LEFT - 3))


COMPARED = ("deletion", "insertion", "pointing", "mass_gain", "rank_gain")
"""Measures in which a map that is right beats both baselines; in the others a baseline may be best, and says what 0 and 1 mean."""


def shortfalls(document: Facts) -> list[str]:
    """In words: what each method does not do better than random numbers and than the edges of the image."""
    worse: dict[str, list[str]] = {row["method"]: [] for row in document["rows"]}
    for row in document["rows"]:
        baselines = [row[name] for name in ("random", "edge") if row[name] is not None]
        if row["measure"] in COMPARED and row["value"] is not None and baselines:
            best = min(baselines) if row["better"] == "lower" else max(baselines)
            if row["value"] >= best if row["better"] == "lower" else row["value"] <= best:
                worse[row["method"]].append(row["measure"])
    return [
        f"{method}: its mean is better than that of random numbers and image edges in "
        + (f"all but {', '.join(names)}" if names else "all measures")
        for method, names in worse.items()
    ]


def rows_of(document: Facts) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a line for each measure and method."""
    heads = ["measure", "method", "value", "95 % interval", "random", "edge", "undefined", "better"]
    order = {name: place for place, name in enumerate(SAID)}
    cells = [
        [row["measure"], row["method"], number(row["value"]), "-" if row["ci"] is None else f"{row['ci'][0]:.3f} to {row['ci'][1]:.3f}",
         number(row["random"]), number(row["edge"]), str(row["undefined"]), row["better"]]
        for row in sorted(document["rows"], key=lambda row: order[row["measure"]])
    ]  # fmt: skip
    return heads, cells


def table_text(document: Facts) -> str:
    heads, cells = rows_of(document)
    head = f"{document['model']} on {document['dataset']}: {document['cases']} right decisions in {document['n']} images"
    return "\n".join([head, text_table(heads, cells, left=(0, 1, 7)), *shortfalls(document)])


def save_assess(document: Facts, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes assess.json, the tables and the figure into the folder."""
    heads, cells = rows_of(document)
    write_json(out / DOCUMENT, document)
    said = "".join(f"\n* {line}" for line in shortfalls(document))
    write_text(out / TABLE, f"{markdown_table(heads, cells, left=(0, 1, 7))}\n{said}\n")
    plain = [[row[key] for key in ("measure", "method", "value", "random", "edge", "undefined", "better")] for row in document["rows"]]
    write_text(out / SHEET, csv_table([heads[0], heads[1], heads[2], *heads[4:]], plain))
    drawing = assess_figure(document)
    for each in formats:
        write_bytes(out / f"{FIGURE}.{each}", figure_bytes(drawing, each))
    return [out / DOCUMENT, out / TABLE, out / SHEET, *(out / f"{FIGURE}.{each}" for each in formats)]
