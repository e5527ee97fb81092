"""Pictures of a probe run: the drops with their intervals, and for each probe what was changed and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..types import Prediction
from .colours import class_colours
from .page import FONT, SMALL, TINY, Drawing, Page, style
from .prediction import draw_prediction, halo, legend

WIDTH, MARGIN, GAP, LEFT = 180.0, 2.0, 1.5, 25.0
"""Millimetres; LEFT is the column that says which image it is."""

SURE = 0.5
"""Boxes with a lower score are not drawn."""

TALLEST, ONE = 60.0, 80.0
"""Of a row of examples, and the longer side of an image alone."""

INK, CUE, OTHER = "0.15", "#c2410c", "#0369a1"


def drops_figure(report: Mapping[str, Any]) -> Drawing:
    """A bar for the primary drop of each probe, with its 95 % interval; hollow where it is undefined."""
    with style(FONT):
        names = [name for name, row in report["probes"].items() if "measure" not in row]  # the rest is no drop
        rows = [report["probes"][name] for name in names]
        page = Page(120, 18 + 7 * max(1, len(rows)), 200, FONT)
        ax = page.axes(34, 4, 80, 7 * max(1, len(rows)))
        for place, row in enumerate(rows):
            drop, ci = row["primary"]["drop"], row["primary"]["ci"]
            colour = OTHER if row["family"] in ("adversarial", "distortion") else CUE
            if drop is None:
                ax.text(0, place, " undefined", size=SMALL, va="center", color="0.4")
                continue
            ax.barh(place, 100 * drop, height=0.55, color=colour, alpha=0.75, linewidth=0)
            if ci is not None:
                ax.plot([100 * ci[0], 100 * ci[1]], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")
        ax.axvline(0, color=INK, linewidth=0.6)
        ax.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        ax.set_yticklabels([page.fit(f"{row['family']}: {name}", 32, SMALL)[0] for name, row in zip(names, rows, strict=True)], size=SMALL)
        ax.xaxis.set_major_locator(MaxNLocator(7))
        ax.tick_params(axis="x", labelsize=SMALL)
        ax.set_xlabel(f"drop of {report['metric']} in points (95 % interval)", size=SMALL)
        ax.spines[["top", "right", "left"]].set_visible(False)
        return page.drawing


def examples_figure(examples: Sequence[Any]) -> Drawing:
    """One row an example: the reference with the truth, what the model said, the changed image, what it said then."""
    with style(FONT):
        column = (WIDTH - 2 * MARGIN - LEFT - 3 * GAP) / 4
        heights = [min(TALLEST, column * each.before.shape[-2] / each.before.shape[-1]) for each in examples]
        classes = _classes(examples)
        page = Page(WIDTH, MARGIN + 5 + sum(heights) + GAP * len(heights) + (6 if classes else 0) + 1, 140, FONT)
        first = examples[0]
        after = f"{first.images}, severity {first.severity}" if first.degrees else first.images
        heads = [f"{first.reference}: truth", f"{first.reference}: prediction", after, "prediction"]
        for index, head in enumerate(heads):
            page.text(MARGIN + LEFT + index * (column + GAP), MARGIN, page.fit(head, column, SMALL), SMALL, weight="bold")
        y = MARGIN + 5
        for each, height in zip(examples, heights, strict=True):
            _row(page, each, y, column, height)
            y += height + GAP
        _key(page, classes, y + 1)
        return page.drawing


def image_figure(image: Tensor, prediction: Prediction | None, boxes: Mapping[str, Sequence[float]] | None = None) -> Drawing:
    """One image (3, H, W) and what of a prediction is worth drawing, without a margin; ``boxes`` xyxy in pixels by their colours."""
    height, width = image.shape[-2:]
    scale = ONE / max(height, width)
    with style(FONT):
        page = Page(scale * width, scale * height, 200, FONT)
        ax = page.axes(0, 0, page.width, page.height)
        draw_prediction(ax, image, worth_drawing(prediction))
        for colour, (left, top, right, bottom) in (boxes or {}).items():
            look: dict[str, Any] = {"edgecolor": colour, "linewidth": 1.5, "path_effects": halo(1.5)}
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **look))
        return page.drawing


def _row(page: Page, each: Any, y: float, column: float, height: float) -> None:
    points = round(100 * each.drop)
    said = f"{abs(points)} {'point' if abs(points) == 1 else 'points'} {'gained' if points < 0 else 'lost'}"
    words = [*page.fit(each.id, LEFT - 2, SMALL, 3), each.role, said]
    page.text(MARGIN, y, words, SMALL)
    panels: list[tuple[Tensor, Prediction | None]] = [
        (each.before, each.truth), (each.before, each.predicted_before), (each.after, None), (each.after, each.predicted_after),
    ]  # fmt: skip
    for index, (image, prediction) in enumerate(panels):
        width = min(column, height * image.shape[-1] / image.shape[-2])
        ax = page.axes(MARGIN + LEFT + index * (column + GAP), y, width, height)
        shown = worth_drawing(prediction)
        if shown is None or shown.boxes is None:
            draw_prediction(ax, image, shown)
        else:
            _draw_boxes(ax, image, shown)


def _draw_boxes(ax: Axes, image: Tensor, prediction: Prediction) -> None:
    """Boxes in the colours of their classes, without words: panels are small, and the key names the colours."""
    draw_prediction(ax, image, None)
    colours = class_colours(prediction.labels.tolist())
    for (x1, y1, x2, y2), label in zip(prediction.boxes.tolist(), prediction.labels.tolist(), strict=True):  # type: ignore[union-attr]
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colours[label], linewidth=1.0))


def worth_drawing(prediction: Prediction | None) -> Prediction | None:
    """What is worth drawing: no background, no box of which the model is not sure."""
    if prediction is None:
        return None
    if prediction.boxes is None:
        keep = prediction.labels != (-1 if prediction.background is None else prediction.background)
        return replace(prediction, labels=prediction.labels[keep], scores=prediction.scores[keep])
    keep = prediction.scores >= SURE
    rows = {name: getattr(prediction, name) for name in ("labels", "scores", "boxes", "masks", "origins")}
    return replace(prediction, **{name: each[keep] for name, each in rows.items() if each is not None})


def _classes(examples: Sequence[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in examples:
        for prediction in (each.truth, each.predicted_before, each.predicted_after):
            found |= {name: colour for name, colour in legend(worth_drawing(prediction)) if colour is not None and name not in found}
    return found


def _key(page: Page, classes: Mapping[str, str], y: float) -> None:
    """The colours of the classes, in one line as far as it reaches."""
    x, step = MARGIN + LEFT, (WIDTH - 2 * MARGIN - LEFT) / max(6, min(11, len(classes)))
    for name, colour in list(classes.items())[: int((WIDTH - x) / step)]:
        ax = page.axes(x, y, 2.2, 2.2)
        ax.set_facecolor(colour)
        ax.spines[:].set_visible(False)
        page.text(x + 3, y - 0.2, page.fit(name, step - 4, TINY), TINY)
        x += step
