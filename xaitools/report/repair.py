"""What a repair does to a dataset, as a list that a user can open, a document and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.patches import Rectangle

from ..audit.repair import SHOWN, Example, Repair
from ..files import write_bytes, write_json
from .page import FONT, LINE, POINT, SIZE, SMALL, Drawing, Page, figure_bytes, style
from .tables import csv_table, number, text_table

DOCUMENT, SHEET, FIGURE = "repair.json", "repair.csv", "figure"

CELL, GAP, BETWEEN, MARGIN = 20.0, 1.0, 4.0, 3.0
"""Millimetres: a picture, between before and after, between images, around."""

PLACE, FADED = "#e66101", 0.25
"""Colour of the place's outline, and how much is left of what is left out."""

Facts = Mapping[str, Any]


def repair_figure(found: Repair, *, dpi: int = 200) -> Drawing:
    """Of each artefact a row of images that carry it and one of such that do not, each as it is and as it is trained with."""
    groups: dict[tuple[str, bool], list[Example]] = {}
    for each in found.examples:
        groups.setdefault((each.row["artefact"], each.row["carries"]), []).append(each)
    head, below = LINE * SIZE * POINT + 1, 2 * LINE * SMALL * POINT + 2
    tall = head + CELL + below
    pair = 2 * CELL + GAP
    width = 2 * MARGIN + SHOWN * pair + (SHOWN - 1) * BETWEEN
    words = _words(found.document)
    with style(FONT):
        lines = [line for each in words for line in Page(width, 10, dpi, FONT).fit(each, width - 2 * MARGIN, SMALL, 2)]
        page = Page(width, 2 * MARGIN + max(1, len(groups)) * tall + len(lines) * LINE * SMALL * POINT, dpi, FONT)
        for place, ((artefact, carries), examples) in enumerate(groups.items()):
            y = MARGIN + place * tall
            said = f"carry what the model takes for {artefact}" if carries else f"do not carry what the model takes for {artefact}"
            page.text(MARGIN, y, [f"Images that {said}, before and after"], SIZE)
            for column, example in enumerate(examples):
                _pair(page, example, MARGIN + column * (pair + BETWEEN), y + head)
        page.text(MARGIN, MARGIN + max(1, len(groups)) * tall, lines, color="0.3")
        return page.drawing


def _pair(page: Page, example: Example, x: float, y: float) -> None:
    row = example.row
    height, width = example.before.shape[-2:]
    for offset, image, faded in ((0.0, example.before, False), (CELL + GAP, example.after, row["action"] == "drop")):
        ax = page.axes(x + offset, y, CELL, CELL)
        pixels = image.permute(1, 2, 0).clamp(0, 1).numpy()
        ax.imshow(FADED * pixels + 1 - FADED if faded else pixels, interpolation="nearest", extent=(0, width, height, 0))
        ax.set(xlim=(0, max(height, width)), ylim=(max(height, width), 0))
        ax.axis("off")
        if not offset:
            corner = (row["left"], row["top"])
            ax.add_patch(
                Rectangle(corner, row["right"] - row["left"], row["bottom"] - row["top"], fill=False, edgecolor=PLACE, linewidth=0.8)
            )
    told = {"mask": "painted over", "drop": "left out", "weight": f"weight {row['weight']:.3g}", "keep": "as it is"}[row["action"]]
    lines = page.fit(f"{row['class'] or 'no class'}, {row['id']}", 2 * CELL + GAP, SMALL)
    page.text(x, y + CELL + 1, [*lines, f"effect {row['effect']:.2f}: {told}"], color="0.2")


def _words(document: Facts) -> list[str]:
    return [
        f"{document['model']} on {document['dataset']}, {document['n']} images. Outlined: the artefact's place.",
        "Effect: how much more of the class is seen in images of other classes with what lies at the place of this one; it is carried from "
        + ", ".join(f"{each['threshold']:.2f} for {each['class']}" for each in document["artefacts"])
        + " on, half of what the audit measured.",
    ]


def table_text(document: Facts) -> str:
    """What becomes of the images, class by class."""
    heads = ["artefact of", "images of", "n", "carry", "unknown", "mask", "drop", "weight carrying", "others"]
    cells = [
        [row["artefact"], row["class"] or "-", *(str(row[key]) for key in ("images", "carry", "unknown", "mask", "drop")),
         *("-" if row[key] is None else number(row[key]) for key in ("weight_carrying", "weight_others"))]
        for row in document["classes"]
    ]  # fmt: skip
    return f"{document['model']} on {document['dataset']}: {document['action']}\n{text_table(heads, cells, left=(0, 1))}"


def save_repair(found: Repair, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes repair.csv, the figure and repair.json, which comes last, into the folder; gives their paths."""
    drawing, heads = repair_figure(found), list(found.rows[0])
    files = {SHEET: csv_table(heads, [[_cell(row[key]) for key in heads] for row in found.rows]).encode()}
    files |= {f"{FIGURE}.{each}": figure_bytes(drawing, each) for each in formats}
    for name, content in files.items():
        write_bytes(out / name, content)
    write_json(out / DOCUMENT, found.document)
    return [out / name for name in (DOCUMENT, *files)]


def _cell(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
