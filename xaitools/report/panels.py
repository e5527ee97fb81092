"""The five panels of Zeiler and Fergus (2014, figure 6) as a figure and as panels.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from torch import Tensor

from .. import __version__
from ..errors import XaiError
from ..files import plain
from ..types import Attribution, Explanation, Panels, Refusal
from .colours import array, class_colours, map_rgb
from .figures import GAP, MARGIN, ROW_GAP, TEXT, TITLE, check_look, number
from .page import FONT, SIZE, SMALL, Drawing, Page, fit, style
from .prediction import show, shrink
from .store import explanations_of

MOST_ROWS = 6
LINES = 3  # of a caption
NAMED = 3  # classes in the caption of the last panel
TITLES = ("window", "activation of a map", "that map, led back", "probability", "most probable class")
GREY = "#999999"


def panels_figure(
    result: Attribution | Explanation | Sequence[Attribution | Refusal],
    *,
    image: Tensor | None = None,
    width_mm: float = 180.0,
    dpi: int = 300,
    font: str = FONT,
    titles: bool = True,
) -> Drawing:
    """A row of five panels for each target of the method ``occlusion-panels``, at most six.

    The image with the window where hiding lowers the probability most; at each position of the window the sum of the
    activations of the feature map that answers most to the target, that map led back to the image, the probability of the
    target's class, and the class that is most probable.  White is 0; dark red is 1 of a probability, and the largest sum.

    >>> panels_figure(attribution).savefig("panels.pdf")  # doctest: +SKIP
    """
    explanations = explanations_of(result, image)
    kept = [each for explanation in explanations for each in with_panels(explanation)][:MOST_ROWS]
    if not kept:
        raise XaiError("nothing here has panels; explain with occlusion-panels")
    look = check_look("single", None, width_mm, dpi, font, titles)
    cell = (look.width - 2 * MARGIN - (len(TITLES) - 1) * GAP) / len(TITLES)
    heights = [cell * each.values.shape[0] / each.values.shape[1] for each, _ in kept]
    heading, foot = TITLE * titles, 0.5 + LINES * TEXT
    with style(font):
        total = 2 * MARGIN + heading + sum(heading + height + foot for height in heights) + (len(kept) - 1) * ROW_GAP
        page = Page(look.width, total, look.dpi, look.font)
        y = MARGIN
        for row, ((each, panels), height) in enumerate(zip(kept, heights, strict=True)):
            if titles:
                words = f"{each.target}, probability {number(each.score)}"
                page.text(MARGIN, y, page.fit(words, look.width - 2 * MARGIN, SIZE, weight="bold"), SIZE, weight="bold")
                y += heading
            for place, title in enumerate(TITLES if titles and row == 0 else ()):
                page.text(MARGIN + place * (cell + GAP) + cell / 2, y, page.fit(title, cell, SIZE), SIZE, ha="center")
            y += heading * (row == 0)
            _row(page, y, (cell, height), each, panels)
            y += height + foot + ROW_GAP
        return page.drawing


def with_panels(explanation: Explanation) -> list[tuple[Attribution, Panels]]:
    return [(each, each.panels) for each in explanation.pairs() if isinstance(each, Attribution) and each.panels is not None]


def panels_document(explanation: Explanation) -> dict[str, Any]:
    """What stands in panels.json: for each target a grid of R rows and C columns, one entry for each position of the window.

    ``tops`` and ``lefts`` say where the window, of ``window`` pixels a side, begins.  ``labels`` are indices into ``names``.
    """
    rows = [
        {
            "target": each.target, "window": panels.window, "tops": panels.tops, "lefts": panels.lefts,
            "layer": panels.layer, "feature": panels.feature,
            "activation": panels.activation, "clean_activation": panels.clean_activation,
            "probability": panels.probability, "clean_probability": panels.clean_probability,
            "labels": panels.labels, "names": panels.names,
        }
        for each, panels in with_panels(explanation)
    ]  # fmt: skip
    return plain({"xaitools": __version__, "model": explanation.model, "image": explanation.name, "panels": rows})


def _row(page: Page, y: float, panel: tuple[float, float], each: Attribution, panels: Panels) -> None:
    size = (each.values.shape[0], each.values.shape[1])
    most = max(float(panels.activation.max()), panels.clean_activation)
    labels = panels.labels.unique().tolist()
    colours = class_colours([label for label in labels if label < len(panels.names) - 1]) | {len(panels.names) - 1: GREY}
    pictures: list[Tensor | np.ndarray] = [
        panels.occluded, _spread(map_rgb(panels.activation, most), panels, size), panels.projection,
        _spread(map_rgb(panels.probability, 1.0), panels, size),
        _spread(np.array([[to_rgb(colours[label]) for label in row] for row in panels.labels.tolist()]), panels, size),
    ]  # fmt: skip
    for place, (picture, words) in enumerate(zip(pictures, _captions(panels), strict=True)):
        x = MARGIN + place * (panel[0] + GAP)
        ax = page.axes(x, y, *panel)
        show(ax, np.clip(array(shrink(ax, picture)).transpose(1, 2, 0), 0, 1) if isinstance(picture, Tensor) else picture, size)
        if place == 0:
            top, left = _worst(panels)
            ax.add_patch(Rectangle((left, top), panels.window, panels.window, fill=False, edgecolor="black", linewidth=0.6))
        if isinstance(words, str):
            page.text(x + panel[0] / 2, y + panel[1] + 0.5, fit(words, panel[0], SMALL, LINES, page.font), ha="center")
            continue
        for line, (name, label) in enumerate(words):
            page.axes(x, y + panel[1] + 1.0 + line * TEXT, 2.0, 1.5).set_facecolor(colours[label])
            page.text(x + 3.0, y + panel[1] + 0.5 + line * TEXT, page.fit(name, panel[0] - 3.0))


def _captions(panels: Panels) -> list[str | list[tuple[str, int]]]:
    """Below each panel: words, or classes (name and share, label) that get a patch of their colour."""
    low, high = (number(float(end)) for end in panels.activation.aminmax())
    least, most = (number(float(end), 2) for end in panels.probability.aminmax())
    counts = Counter(panels.labels.flatten().tolist()).most_common(NAMED)
    share = {label: f"{panels.names[label]}, {count} of {panels.labels.numel()}" for label, count in counts}
    return [
        f"of the probability {least} is left",
        f"{low} to {high}, clean {number(panels.clean_activation)}",
        f"map {panels.feature} of {panels.layer}",
        f"{least} to {most}, clean {number(panels.clean_probability, 2)}",
        [(name, label) for label, name in share.items()],
    ]


def _worst(panels: Panels) -> tuple[int, int]:
    row, column = divmod(int(panels.probability.argmin()), len(panels.lefts))
    return int(panels.tops[row]), int(panels.lefts[column])


def _spread(colours: np.ndarray, panels: Panels, size: tuple[int, int]) -> np.ndarray:
    """Colours (R, C, 3) of positions as a picture (H, W, 3): each pixel has that of the window whose middle is nearest."""
    rows, columns = (
        np.abs(np.arange(length)[:, None] + 0.5 - (array(begins) + panels.window / 2)).argmin(1)
        for length, begins in zip(size, (panels.tops, panels.lefts), strict=True)
    )
    return colours[rows][:, columns]
