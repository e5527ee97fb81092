"""Figures as functions of results.

``single`` shows one image: targets in rows, and for each method the signed map over the greyed image with the same
map.  ``sheet`` shows several: images in rows, methods in columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from torch import Tensor

from ..errors import XaiError
from ..targets import Target
from ..types import Attribution, Explanation, Prediction, Refusal
from .colours import SHARE, limit_of, map_rgb, overlay_rgb
from .page import FONT, LINE, POINT, SIZE, SMALL, Drawing, Page, check_font, extent, figure_bytes, fit, save_figure, style
from .prediction import draw_prediction, draw_target, legend, show, shrink
from .shares import is_lrp
from .store import explanations_of

__all__ = ["draw_prediction", "figure", "figure_bytes", "limit_of", "map_rgb", "overlay_rgb", "save_figure"]

MAX_ROWS = 24
MARGIN, GAP, ROW_GAP, BAR = 1.0, 2.5, 4.0, 1.8  # millimetres
NARROWEST, TALLEST = 30.0, 80.0
WIDEST_BAR = 60.0
TITLE, TEXT = LINE * SIZE * POINT + 0.5, LINE * SMALL * POINT
UNDER = 1.2 + BAR + 3.6 + TEXT  # a colour bar with its numbers and what it says
ZERO = "zero everywhere"

COLOURS = ListedColormap(map_rgb(np.linspace(-1, 1, 511)[None], 1)[0] / 255)
"""Of a colour bar; an odd number, so that one of them is exactly the white of zero."""

Column = Sequence[Attribution | Refusal | None]


@dataclass(frozen=True)
class _Look:
    scale: str | float
    width: float
    dpi: int
    font: str
    titles: bool


def figure(
    result: Attribution | Explanation | Sequence[Attribution | Refusal] | Sequence[Explanation],
    *,
    image: Tensor | None = None,
    prediction: Prediction | None = None,
    layout: str | None = None,
    scale: str | float | None = None,
    width_mm: float | None = None,
    dpi: int = 300,
    font: str = FONT,
    titles: bool = True,
) -> Drawing:
    """A figure of attributions: red speaks for the explained number, blue against it, white is zero.

    ``image`` (3, H, W) and ``prediction`` complete attributions that come alone.  ``layout`` is ``single`` (the default
    for one image) or ``sheet`` (for several explanations).  ``scale`` says where the colours end: ``each`` at the
    ``limit_of`` every map (default of ``single``), ``shared`` at the largest such limit in the method's column (default
    of ``sheet``), or at a given number; colour bars with arrow heads have values beyond.  ``width_mm`` is 180, and 85 for
    a map without its image.  ``titles=False`` leaves the names of methods and targets to the caption.

    >>> figure(attribution).savefig("why.pdf")  # doctest: +SKIP
    """
    explanations = explanations_of(result, image, prediction)
    layout = layout or ("single" if len(explanations) == 1 else "sheet")
    if layout == "single" and len(explanations) > 1:
        raise XaiError(f"layout single takes one image, got {len(explanations)}; use sheet, or draw them one by one")
    lone = layout == "single" and explanations[0].image is None and len(explanations[0].attributions) == 1
    width_mm = width_mm or (85.0 if lone else 180.0)
    look = check_look(layout, scale, width_mm, dpi, font, titles)
    with style(font):
        return _single(explanations[0], look) if layout == "single" else _sheet(explanations, look)


def check_look(layout: str, scale: str | float | None, width_mm: float, dpi: int, font: str, titles: bool = True) -> _Look:
    """The look of a figure, or one line that says which of its numbers cannot be; to be asked before maps are computed."""
    if layout not in ("single", "sheet"):
        raise XaiError(f"layout {layout!r}; expected single or sheet")
    if not (NARROWEST <= width_mm <= 1000 and 30 <= dpi <= 1200):
        raise XaiError(f"a figure of {width_mm:g} mm at {dpi} dpi; expected {NARROWEST:g} to 1000 mm and 30 to 1200 dpi")
    check_font(font)
    return _Look(_scale(scale, layout), width_mm, dpi, font, titles)


def _scale(scale: str | float | None, layout: str) -> str | float:
    if scale is None:
        return "each" if layout == "single" else "shared"
    if scale in ("each", "shared"):
        return scale
    try:
        limit = float(scale)
    except (TypeError, ValueError):
        limit = math.nan
    if not (math.isfinite(limit) and limit > 0):
        raise XaiError(f"scale {scale!r}; expected each, shared, or the value above zero where the colours end")
    return limit


def _limits(column: Column, scale: str | float) -> list[float]:
    """Where the colours of each map in a method's column end; 0 where there is no map."""
    own = [limit_of(each.values) if isinstance(each, Attribution) else 0.0 for each in column]
    if scale == "each":
        return own
    common = max(own, default=0.0) if scale == "shared" else float(scale)
    return [common] * len(own)


# --- one image: targets in rows ---


@dataclass(frozen=True)
class _Grid:
    """How the panels of one image are arranged: the image, then ``columns`` slots of map and overlay.

    ``image`` and ``panel`` are (width, height); ``beside`` puts the overlay beside the map instead of below it.
    """

    columns: int
    beside: bool
    lead: float
    cell: float
    image: tuple[float, float]
    panel: tuple[float, float]

    @property
    def slot(self) -> float:
        return 2 * self.cell + GAP if self.beside else self.cell

    @property
    def maps(self) -> float:
        """Height of a slot's map and overlay."""
        return 2 * self.panel[1] + GAP / 2 if self.lead and not self.beside else self.panel[1]

    def x(self, column: int) -> float:
        return MARGIN + (self.lead + GAP if self.lead else 0) + column * (self.slot + GAP)


def _grid(explanation: Explanation, width: float) -> _Grid:
    """Few wide panels for a wide image; map and overlay side by side for a tall image or a single method."""
    height, length = _size(explanation)
    aspect, picture, count = length / height, explanation.image is not None, max(1, len(explanation.methods))
    most = 1 if aspect > 4 else 2 if aspect > 2.2 else 4
    columns = math.ceil(count / math.ceil(count / max(1, min(most, int(width / NARROWEST) - picture))))
    beside = picture and aspect <= 2.2 and (columns == 1 or aspect < 0.6) and width >= 3 * NARROWEST
    large = picture and columns == count == 2 and 0.6 <= aspect <= 2.2 and width >= 4 * NARROWEST
    cells = columns * (1 + beside) + picture * (1 + large)
    # a large image is as high as a map, its overlay and the half gap between them
    cell = (width - 2 * MARGIN - (cells - 1 - large) * GAP - large * aspect * GAP / 2) / cells
    panel = _fitted(cell, (height, length))
    tall = 2 * panel[1] + GAP / 2 if large else panel[1]
    return _Grid(columns, beside, (2 * cell + aspect * GAP / 2 if large else cell) * picture, cell, (tall * aspect, tall), panel)


def _size(explanation: Explanation) -> tuple[int, int]:
    maps = [each.values for each in explanation.attributions if isinstance(each, Attribution)]
    first = explanation.image if explanation.image is not None else maps[0] if maps else None
    if first is None:
        return (3, 4)  # refusals alone; any shape serves
    size = (first.shape[-2], first.shape[-1])
    if any(tuple(each.shape) != size for each in maps):
        raise XaiError(f"a map has another size than its image of (H, W) = {size}; maps have the size of the original image")
    return size


def _single(explanation: Explanation, look: _Look) -> Drawing:
    grid, key = _grid(explanation, look.width), Key([explanation], look)
    targets, methods = explanation.targets[:MAX_ROWS], explanation.methods
    bands = [methods[start : start + grid.columns] for start in range(0, len(methods), grid.columns)]
    names = {target: _headline(explanation, target) for target in targets} if look.titles else {}
    title = TITLE if names else 0.0
    head = 0.0 if all(extent(name, SIZE, look.font, "bold") <= grid.lead for name in names.values()) else title
    slots = [[title + grid.maps + _under([explanation.pair(target, method) for method in band], grid.slot, look) for band in bands]
             for target in targets]  # fmt: skip
    left = title + grid.image[1] + 1.0
    rows = [head + max(sum(each), left + key.height(grid.lead) * (row == 0), left * bool(grid.lead)) for row, each in enumerate(slots)]
    limits = {method: _limits([explanation.pair(target, method) for target in targets], look.scale) for method in methods}
    more = len(explanation.targets) - len(targets)
    page = Page(look.width, 2 * MARGIN + sum(rows) + (len(rows) - 1) * ROW_GAP + TEXT * bool(more), look.dpi, look.font)
    top = MARGIN
    for row, target in enumerate(targets):
        y = top + head
        if names:
            page.text(MARGIN, top, page.fit(names[target], look.width - 2 * MARGIN, SIZE, weight="bold"), SIZE, weight="bold")
        if explanation.image is not None:
            ax = page.axes(MARGIN, y + title, *grid.image)
            draw_prediction(ax, explanation.image, explanation.prediction, target)
            if row == 0:
                key.draw(page, MARGIN, y + left, grid.lead)
        for band, height in zip(bands, slots[row], strict=True):
            for place, method in enumerate(band):
                pair = explanation.pair(target, method)
                if pair is not None:
                    _slot(page, grid, (grid.x(place), y), explanation, pair, limits[method][row], look)
            y += height
        top += rows[row] + ROW_GAP
    if more:
        page.text(MARGIN, page.height - MARGIN - TEXT, [f"{more} more targets are in explanation.json"])
    return page.drawing


def _under(pairs: Column, width: float, look: _Look) -> float:
    """Height of what stands below the maps of one band."""
    return UNDER + TEXT * max(len(_notes(each, width, look)) for each in pairs) + GAP


def _slot(
    page: Page, grid: _Grid, at: tuple[float, float], explanation: Explanation, pair: Attribution | Refusal, limit: float, look: _Look
) -> None:
    """Title, map, overlay, colour bar and notes of one target and method."""
    x, y = at
    middle = x + grid.slot / 2
    if look.titles:
        page.text(middle, y, page.fit(pair.method, grid.slot, SIZE), SIZE, ha="center")
        y += TITLE
    width, height = grid.panel
    block = 2 * width + GAP if grid.beside else width
    x0 = middle - block / 2
    if isinstance(pair, Refusal):
        _refused(page, x0, y, (block, grid.maps), pair)
        return
    _map(page, x0, y, grid.panel, pair, limit)
    if explanation.image is not None:
        across, down = (width + GAP, 0.0) if grid.beside else (0.0, height + GAP / 2)
        ax = page.axes(x0 + across, y + down, *grid.panel)
        size = (pair.values.shape[0], pair.values.shape[1])
        if pair.image is not None:
            show(ax, shrink(ax, pair.image).transpose(1, 2, 0), size)
        else:
            show(ax, overlay_rgb(shrink(ax, explanation.image), shrink(ax, pair.values), limit), size)
        if explanation.prediction is not None and pair.image is None:
            draw_target(ax, explanation.prediction, pair.target, linewidth=0.5)
    y += grid.maps
    _bar(page, x, y, grid.slot, limit, [pair], look)
    page.text(middle, y + UNDER, _notes(pair, grid.slot, look), ha="center")


def _headline(explanation: Explanation, target: str) -> str:
    made = [each for each in explanation.attributions if isinstance(each, Attribution) and each.target == target]
    logits = [each for each in made if _reading(each) == "logit"] or made
    return f"{target}, {_scored(logits[0])}" if logits else target


def _reading(attribution: Attribution) -> str:
    """What the explained number is: a method may look at another number than the target's logit."""
    return str(attribution.params.get("score", "logit"))


def _scored(attribution: Attribution) -> str:
    target, reading = Target.parse(attribution.target), _reading(attribution)
    if reading == "logit":
        reading = "edge output" if target.edge else "logit difference" if target.versus is not None else "logit"
    return f"{reading} {number(attribution.score)}"


def _notes(pair: Attribution | Refusal | None, width: float, look: _Look) -> list[str]:
    """What must be known to read a map: where LRP's relevance went, and another number than the row's."""
    if not isinstance(pair, Attribution) or not look.titles:
        return []
    notes = list(pair.notes)
    if _reading(pair) != "logit":
        notes.insert(0, f"explains the {_scored(pair)}")
    if pair.ledger is not None and not is_lrp(pair.method):
        notes[:0] = [f"{name} {number(each)}" for name, each in pair.ledger]
    elif pair.ledger is not None:
        absorbed = math.fsum(each for _, each in pair.ledger)
        share = f" ({number(100 * absorbed / pair.score)} %)" if pair.score else ""
        notes[:0] = [f"sum of relevance {number(float(pair.values.double().sum()))}", f"absorbed {number(absorbed)}{share}"]
    return [line for note in notes for line in fit(note, width, SMALL, 2, look.font)]


class Key:
    """The legend of what was found, in as many columns as the width allows."""

    most = 12

    def __init__(self, explanations: Sequence[Explanation], look: _Look) -> None:
        entries = list(dict.fromkeys(entry for each in explanations if each.image is not None for entry in legend(each.prediction)))
        if len(explanations) > 1:  # without a colour it is a score, which belongs to one image
            entries = [(name, colour) for name, colour in entries if colour]
        more = len(entries) - self.most
        self.entries = entries if more <= 1 else [*entries[: self.most], (f"and {more} more", None)]
        self.font = look.font

    def columns(self, width: float) -> int:
        widest = max((extent(name, SMALL, self.font) for name, _ in self.entries), default=0)
        return max(1, min(3, int(width / (widest + 5.0))))

    def height(self, width: float) -> float:
        return TEXT * math.ceil(len(self.entries) / self.columns(width))

    def draw(self, page: Page, x: float, y: float, width: float) -> None:
        step = width / self.columns(width)
        for index, (name, colour) in enumerate(self.entries):
            down, across = divmod(index, self.columns(width))
            left, top = x + across * step, y + down * TEXT
            if colour:
                page.axes(left, top + 0.5, 2.0, 1.5).set_facecolor(colour)
            page.text(left + (3.0 if colour else 0), top, page.fit(name, step - 3.5))


# --- several images: a sheet ---


def _sheet(explanations: Sequence[Explanation], look: _Look) -> Drawing:
    """Images (and their targets) in rows, methods in columns, one colour bar for each column."""
    methods = tuple(dict.fromkeys(method for each in explanations for method in each.methods))
    rows = [(each, target) for each in explanations for target in each.targets]
    more, rows = len(rows) - MAX_ROWS, rows[:MAX_ROWS]
    cell = (look.width - 2 * MARGIN - len(methods) * GAP) / (len(methods) + 1)
    key, panels = Key([each for each, _ in rows], look), [_fitted(cell, _size(each)) for each, _ in rows]
    title, foot = look.titles * TITLE, TEXT * (look.scale == "each")
    heights = [title + panel[1] + foot + GAP for panel in panels]
    page = Page(look.width, 2 * MARGIN + title + sum(heights) + max(UNDER, key.height(cell)) + TEXT * (more > 0), look.dpi, look.font)
    places = {method: MARGIN + (index + 1) * (cell + GAP) for index, method in enumerate(methods)}
    columns: dict[str, Column] = {method: [each.pair(target, method) for each, target in rows] for method in methods}
    limits = {method: _limits(column, look.scale) for method, column in columns.items()}
    if look.titles:
        for method, x in places.items():
            page.text(x + cell / 2, MARGIN, page.fit(method, cell, SIZE), SIZE, ha="center")
    y = MARGIN + title
    for index, ((explanation, target), panel) in enumerate(zip(rows, panels, strict=True)):
        if look.titles:
            line = " · ".join(filter(None, (explanation.name, _headline(explanation, target))))
            page.text(MARGIN, y, page.fit(line, look.width - 2 * MARGIN))
        top, inset = y + title, (cell - panel[0]) / 2
        if explanation.image is not None:
            draw_prediction(page.axes(MARGIN + inset, top, *panel), explanation.image, explanation.prediction, target)
        for method, x in places.items():
            pair = columns[method][index]
            if isinstance(pair, Refusal):
                _refused(page, x + inset, top, panel, pair)
            elif pair is not None:
                limit = limits[method][index]
                _map(page, x + inset, top, panel, pair, limit)
                if foot:
                    page.text(x + cell / 2, top + panel[1] + 0.3, [f"±{number(limit)}" if limit else ZERO], ha="center")
        y += heights[index]
    for method, x in places.items():
        made = [each for each in columns[method] if isinstance(each, Attribution)]
        if made:
            _bar(page, x, y - GAP, cell, None if foot else max(limits[method]), made, look)
    key.draw(page, MARGIN, y - GAP + 1.0, cell)
    if more > 0:
        page.text(MARGIN, page.height - MARGIN - TEXT, [f"{more} more rows are not drawn"])
    return page.drawing


def _fitted(cell: float, size: tuple[int, int]) -> tuple[float, float]:
    """(width, height) of a panel for an image of ``size`` (H, W)."""
    height = min(cell * size[0] / size[1], TALLEST)
    return height * size[1] / size[0], height


# --- panels ---


def _map(page: Page, x: float, y: float, panel: tuple[float, float], attribution: Attribution, limit: float) -> None:
    ax = page.axes(x, y, *panel)
    height, width = attribution.values.shape
    show(ax, map_rgb(shrink(ax, attribution.values), limit), (height, width))


def _refused(page: Page, x: float, y: float, panel: tuple[float, float], refusal: Refusal) -> None:
    ax = page.axes(x, y, *panel)
    ax.set_facecolor("0.95")
    ax.spines[:].set_color("0.6")
    room = max(1, int((panel[1] - 2) / TEXT) - 1)
    page.text(x + 1, y + 1, ["refused", *page.fit(refusal.error, panel[0] - 2, SMALL, room)], color="0.25")


def _bar(page: Page, x: float, y: float, width: float, limit: float | None, maps: Sequence[Attribution], look: _Look) -> None:
    """A horizontal colour bar below the height ``y``; without a limit it reads "limit", which then stands below each map."""
    if limit == 0:
        defined = any(bool(each.values.isfinite().any()) for each in maps)
        page.text(x + width / 2, y + 1.2, [ZERO if defined else "undefined everywhere"], ha="center")
        return
    low, zero, high = _ticks(limit, width, look.font)
    inset = max(extent(low, SMALL, look.font) / 2, (width - WIDEST_BAR) / 2)
    ax = page.axes(x + inset, y + 1.2, width - 2 * inset, BAR)
    clipped, bound = any(_clipped(each, limit) for each in maps), limit or 1.0
    arrows = "both" if clipped else "neither"
    colours = ScalarMappable(Normalize(-bound, bound), COLOURS)
    bar = page.drawing.colorbar(colours, cax=ax, orientation="horizontal", ticks=[-bound, 0, bound], extend=arrows, extendfrac=0.05)
    bar.ax.set_xticklabels([low, zero, high], size=SMALL)
    bar.outline.set_linewidth(0.4)
    if bar.solids is not None:  # one picture instead of hundreds of slivers with seams between them
        bar.solids.set(rasterized=True, edgecolor="face")
    said = _within(clipped, look)
    fitting = [each for each in said if extent(each, SMALL, look.font) <= width]
    page.text(x + width / 2, y + UNDER - TEXT, fitting[:1], ha="center")


def _ticks(limit: float | None, width: float, font: str) -> tuple[str, str, str]:
    """The numbers below a bar; a narrow one has fewer digits, and at last the limit alone."""
    choices = [("−limit", "limit")] if limit is None else [(number(-limit, digits), number(limit, digits)) for digits in (3, 2)]
    for low, high in choices:
        if 2.2 * extent(low, SMALL, font) + extent("0", SMALL, font) + 1.0 <= width:
            return low, "0", high
    return "", f"±{choices[-1][1]}", ""


def _clipped(each: Attribution, limit: float | None) -> bool:
    return bool((each.values.abs() > (limit_of(each.values) if limit is None else limit)).any())


def _within(clipped: bool, look: _Look) -> tuple[str, ...]:
    """What the bar says about its ends, from long to short."""
    if not clipped:
        return ("all values within", "all within")
    if isinstance(look.scale, float):
        return ("limit given, values beyond", "limit given")
    share = f"{100 * SHARE:g} %"
    return (f"at least {share} of |values| within", f"{share} of |values| within", f"{share} within")


def number(value: float, digits: int = 3) -> str:
    """A few digits, with a true minus sign.

    >>> number(-0.0000213), number(12.3456)
    ('−2.13e−5', '12.3')
    """
    mantissa, e, exponent = f"{value:.{digits}g}".partition("e")
    return (mantissa + (f"e{int(exponent)}" if e else "")).replace("-", "−")
