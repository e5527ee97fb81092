"""What feature maps answer to most (Zeiler and Fergus 2014, figure 2) as a figure and as activations.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from .. import __version__
from ..attribution.feature_projection import picture
from ..errors import XaiError
from ..files import plain
from ..types import Activations, FeatureMap, Peak
from .colours import array
from .figures import GAP, MARGIN, ROW_GAP, TEXT, TITLE, check_look, number
from .page import FONT, SIZE, SMALL, Drawing, Page, figure_bytes, style
from .store import FORMATS, check_formats, claimed, replace_files
from .tables import text_table

DOCUMENT, FIGURE = "activations.json", "figure"

MOST_MAPS = 12
BESIDE = 2
"""Maps in a row of the figure, where there are several."""

BETWEEN, INSIDE = 0.4, 1.2
"""Millimetres between patches, and between the projections and the patches of a map."""

WIDEST = 60.0
"""Millimetres of the patches of one map, at most."""


def activations_figure(result: Activations, *, width_mm: float = 180.0, dpi: int = 300, font: str = FONT, titles: bool = True) -> Drawing:
    """Of each map, at most twelve, its strongest activations led back to the image, and beside them what these cells can see.

    The strongest stands at the upper left, and the same place in both squares is the same image.  Grey is 0 of a
    projection; each has its own scale.  Patches of a map are drawn on one scale of pixels, so those cut off at the
    image's border are smaller.

    >>> activations_figure(result).savefig("activations.pdf")  # doctest: +SKIP
    """
    if not isinstance(result, Activations):
        raise XaiError(f"got {type(result).__name__}; expected what strongest_activations gives")
    look, shown = check_look("single", None, width_mm, dpi, font, titles), result.maps[:MOST_MAPS]
    columns = min(BESIDE, len(shown))
    room = (look.width - 2 * MARGIN - (columns - 1) * GAP) / columns
    across = math.ceil(math.sqrt(result.top))
    down = math.ceil(result.top / across)
    grid = min(WIDEST, (room - INSIDE) / 2)
    cell = (grid - (across - 1) * BETWEEN) / across
    tall = down * cell + (down - 1) * BETWEEN
    with style(font):
        foot = [line for words in _words(result) for line in Page(1, 1, dpi, font).fit(words, look.width - 2 * MARGIN, SMALL, 3)]
        block = TITLE * titles + tall + 0.5 + 2 * TEXT
        rows = math.ceil(len(shown) / columns)
        total = 2 * MARGIN + TITLE * titles + rows * (block + ROW_GAP / 2) + len(foot) * TEXT + 1
        page = Page(look.width, total, look.dpi, look.font)
        y = MARGIN
        if titles:
            words = f"{result.layer} of {result.model}"
            page.text(MARGIN, y, page.fit(words, look.width - 2 * MARGIN, SIZE, weight="bold"), SIZE, weight="bold")
            y += TITLE
        for place, each in enumerate(shown):
            row, column = divmod(place, columns)
            corner = (MARGIN + column * (room + GAP), y + row * (block + ROW_GAP / 2))
            if titles:
                page.text(*corner, page.fit(f"map {each.feature}, above 0 in {each.active} of {result.n} images", room, SIZE), SIZE)
            top = corner[1] + TITLE * titles
            longest = max((max(_sides(peak)) for peak in each.peaks), default=1)
            for left, projections in ((corner[0], True), (corner[0] + grid + INSIDE, False)):
                ax = page.axes(left, top, grid, tall)
                ax.set(xlim=(0, grid), ylim=(tall, 0), aspect="auto")
                ax.spines[:].set_visible(False)
                for rank, peak in enumerate(each.peaks):
                    middle = tuple(at * (cell + BETWEEN) + cell / 2 for at in (rank % across, rank // across))
                    _patch(ax, peak, middle, cell / longest, projections)
            page.text(corner[0], top + tall + 0.5, page.fit(_values(each), 2 * grid + INSIDE, SMALL, 2))
        page.text(MARGIN, y + rows * (block + ROW_GAP / 2) + 1, foot)
        return page.drawing


def _patch(ax: Any, peak: Peak, middle: Sequence[float], scale: float, projection: bool) -> None:
    """The patch of a peak, or its projection, around ``middle`` (x, y), where a pixel of the image is ``scale`` millimetres."""
    width, height = (side * scale for side in _sides(peak))
    left, top = middle[0] - width / 2, middle[1] - height / 2
    shown = np.clip(array(picture(peak.projection) if projection else peak.patch).transpose(1, 2, 0), 0, 1)
    ax.imshow(shown, extent=(left, left + width, top + height, top), interpolation="antialiased", interpolation_stage="rgba", aspect="auto")
    ax.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.6", linewidth=0.3))


def _sides(peak: Peak) -> tuple[int, int]:
    """Width and height of what the cell can see, in pixels of the image."""
    left, top, right, bottom = peak.box.tolist()
    return right - left, bottom - top


def _values(each: FeatureMap) -> str:
    if not each.peaks:
        return ""
    width, height = (max(sides) for sides in zip(*map(_sides, each.peaks), strict=True))
    return f"activations {', '.join(number(peak.value) for peak in each.peaks)}; patches of {width} x {height} pixels"


def _words(result: Activations) -> list[str]:
    peaks = [peak for each in result.maps for peak in each.peaks]
    whole = sum(peak.whole for peak in peaks)
    sees = "all of the image" if whole == len(peaks) else f"all of the image in {whole} of {len(peaks)}" if whole else ""
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    left_out = len(result.maps) - MOST_MAPS
    return [
        f"{result.dataset}: {result.n} images looked at{skipped}, of each map the {result.top} with the strongest single activation",
        "left: this cell led back to the image by a deconvnet, grey is 0, each on its own scale; "
        f"right: the part of the image that it can see{f', which is {sees}' if sees else ''}",
        *result.notes,
        *([f"{left_out} more maps stand in {DOCUMENT}"] if left_out > 0 else []),
    ]


def activations_document(result: Activations) -> dict[str, Any]:
    """What stands in activations.json: of each map its peaks, by falling value.

    ``cell`` is (row, column) in the map, ``box_xyxy`` what it can see in pixels of the image, ``whole`` whether that is all
    of it, ``active`` the number of images in which the map is above 0 anywhere.
    """
    maps = [
        {
            "feature": each.feature,
            "active": each.active,
            "peaks": [
                {
                    "id": peak.id,
                    "value": peak.value,
                    "cell": peak.cell,
                    "box_xyxy": peak.box,
                    "whole": peak.whole,
                    "image_size": peak.image_size,
                }
                for peak in each.peaks
            ],
        }
        for each in result.maps
    ]
    return plain(
        {
            "xaitools": __version__,
            "model": result.model,
            "dataset": result.dataset,
            "task": result.task,
            "layer": result.layer,
            "channels": result.channels,
            "top": result.top,
            "n": result.n,
            "skipped": [{"id": id, "reason": reason} for id, reason in result.skipped],
            "maps": maps,
            **({"notes": result.notes} if result.notes else {}),
        }
    )


def activations_text(result: Activations) -> str:
    """A line for each map."""
    rows = [
        [str(each.feature), str(each.active), *(number(each.peaks[at].value) if each.peaks else "-" for at in (0, -1)),
         ", ".join(peak.id for peak in each.peaks[:3]) or "-"]
        for each in result.maps
    ]  # fmt: skip
    head = f"{result.layer} of {result.model} on {result.dataset}: {result.n} images, {result.channels} maps"
    return f"{head}\n{text_table(['map', 'images above 0', 'strongest', 'weakest shown', 'images'], rows, left=(4,))}"


def claim(out: str | Path) -> Path:
    """``out`` as a folder that may be written: new, empty, or holding nothing but an earlier one of these."""
    return claimed(out, DOCUMENT, {f"{FIGURE}.{each}" for each in FORMATS}, "a table of activations")


def save_activations(result: Activations, out: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes activations.json and figure.<format> into the folder ``out``; gives their paths.

    Raises PlanError when ``out`` holds anything else than earlier ones, which are replaced.
    """
    folder, forms = claim(out), check_formats(formats)
    drawing = activations_figure(result) if forms else None
    files = {f"{FIGURE}.{each}": figure_bytes(drawing, each) for each in forms} if drawing else {}
    return replace_files(folder, DOCUMENT, activations_document(result), files)
