"""How a detector came to its boxes, drawn step by step in the order of the network.

The first row shows all of the image: where the network looks, what it proposes, the boxes of its classes, what
suppression removes, what is left.  A row for each explained box then shows only the candidates behind it, enlarged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb, to_rgba
from torch import Tensor

from ..attribution.detection_trace import cluster
from ..errors import XaiError
from ..targets import Target
from ..types import BEYOND, EMPTY, KEPT, SUPPRESSED, UNRANKED, Attribution, Explanation, Prediction, Refusal, Trace
from .colours import array, class_colours, map_rgb
from .figures import GAP, MARGIN, ROW_GAP, TALLEST, TEXT, TITLE, Key, check_look, number
from .page import FONT, INCH, POINT, SIZE, SMALL, Drawing, Page, extent, fit, style
from .prediction import draw_target, halo, label, shrink
from .store import explanations_of
from .trace_document import trace_of

MOST_ROWS = 6
LINES = 4  # of a caption
LABELLED = 5  # boxes that say their score or IoU
NAMED = 12  # final boxes that say their class and score; more have only numbers
CLOSEST = 6  # an enlarged view is at least a sixth of the image
FAINT = 0.25  # of the weakest line
KEY = 1.2  # height of a colour bar in millimetres
SHORTEST = 1.2  # arrow in millimetres
MARK, LEAST_MARK = 1.8, 0.35  # diameter of a score of 1 in millimetres, at most and at least
SHADES = ((0.0, 0.0), (0.0, 0.5), (1.0, 0.45))  # as it is, darker, lighter: (towards, share)
BEYOND_ALL = "#666666"  # of a box that suppressed others but was not among the best itself

View = tuple[int, int, int, int]


def trace_figure(
    result: Attribution | Explanation | Sequence[Attribution | Refusal],
    *,
    image: Tensor | None = None,
    width_mm: float = 180.0,
    dpi: int = 300,
    font: str = FONT,
    titles: bool = True,
) -> Drawing:
    """How a detector came to its boxes in one image, from what the method ``detection-trace`` gave.

    ``image`` (3, H, W) completes attributions that come alone.  Anchors and proposals are red in proportion to their
    score; boxes have the colour of their class; suppressed boxes are dashed in the colour of the box that won.

    >>> trace_figure(attribution, image=image).savefig("trace.pdf")  # doctest: +SKIP
    """
    explanations = explanations_of(result, image)
    trace = trace_of(explanations[0])
    if len(explanations) > 1 or trace is None:
        raise XaiError("a figure of a trace takes one image explained by detection-trace; explain with that method, draw images one by one")
    look = check_look("single", None, width_mm, dpi, font, titles)
    targets = [each.target for each in explanations[0].pairs() if isinstance(each, Attribution) and each.trace is not None]
    with style(font):
        return _page(explanations[0], trace, targets[:MOST_ROWS], look.width, look.dpi, font, titles)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a row of panels shows: all ``rows`` of a trace in the whole image, or those behind a target, enlarged."""

    trace: Trace
    rows: Tensor
    target: str | None
    view: View
    colours: dict[int, str]


@dataclass(frozen=True)
class _Step:
    """One panel of a row, and what it says in words of its rows."""

    title: str
    draw: Callable[[Axes, _Seen], None]
    words: Callable[[_Seen], str]


def _page(explanation: Explanation, trace: Trace, targets: Sequence[str], width: float, dpi: int, font: str, titles: bool) -> Drawing:
    steps, found, (height, length) = _steps(trace), _found(trace), trace.image_size
    cell = (width - 2 * MARGIN - (len(steps) - 1) * GAP) / len(steps)
    panel = min(cell, TALLEST * length / height), min(cell * height / length, TALLEST)
    colours = class_colours(found.labels.tolist())
    seen = [_Seen(trace, torch.arange(len(trace.labels)), None, (0, 0, length, height), colours)]
    for target in targets:
        rows = cluster(trace, target)
        seen.append(_Seen(trace, rows, target, _view(trace, rows, target), colours))
    captions = [[fit(step.words(each), cell - GAP / 2, SMALL, LINES, font) for step in steps] for each in seen]
    feet = [0.5 + TEXT * max(map(len, row)) for row in captions]
    key = Key([replace(explanation, prediction=found, image=torch.zeros(0))], check_look("single", None, width, dpi, font))
    feet[0] += 1.0 + max(2 * TEXT, key.height(cell))
    heading, y = TITLE * titles, MARGIN
    page = Page(width, 2 * MARGIN + heading + sum(heading + panel[1] + foot for foot in feet) + ROW_GAP * len(targets), dpi, font)
    for each, words, foot in zip(seen, captions, feet, strict=True):
        if titles:
            page.text(MARGIN, y, page.fit(_heading(explanation, each), width - 2 * MARGIN, SIZE, weight="bold"), SIZE, weight="bold")
        y += heading
        for place, (step, lines) in enumerate(zip(steps, words, strict=True)):
            x = MARGIN + place * (cell + GAP)
            if titles and each.target is None:
                page.text(x + cell / 2, y, page.fit(f"{place + 1}  {step.title}", cell, SIZE), SIZE, ha="center")
            top = y + heading * (each.target is None)
            ax = page.axes(x + (cell - panel[0]) / 2, top, *panel)
            _ground(ax, explanation.image, each.view, faint=step.draw is not _draw_final)
            step.draw(ax, each)
            page.text(x + cell / 2, top + panel[1] + 0.5, lines, ha="center")
        y += heading * (each.target is None) + panel[1] + foot
        if each.target is None:
            under = y - max(2 * TEXT, key.height(cell))
            _bar(page, MARGIN, under, cell, "score" if trace.first is None else "objectness")
            key.draw(page, MARGIN + (len(steps) - 1) * (cell + GAP), under, cell)
        y += ROW_GAP
    return page.drawing


def _steps(trace: Trace) -> list[_Step]:
    """The panels in the order of the network; a detector without stages, or with proposals from outside, has one fewer."""
    first = [] if trace.first is None else [_Step(f"{trace.first.kind}s", _draw_places, _say_places)]
    if trace.kind == "proposal":
        second = _Step("proposals", _draw_proposals, _say_proposals)
    else:
        second = _Step(_counted(2, trace.kind)[2:], _draw_places, _say_places)
    return [
        *first, second, _Step("class boxes", _draw_classes, _say_classes), _Step("suppression", _draw_suppression, _say_suppression),
        _Step("final boxes", _draw_final, _say_final),
    ]  # fmt: skip


def _found(trace: Trace) -> Prediction:
    rows = torch.where(trace.finals >= 0)[0]
    rows = rows[trace.finals[rows].argsort()]
    return Prediction("detection", trace.classes, trace.image_size, trace.labels[rows], trace.scores[rows], boxes=trace.boxes[rows])


def _heading(explanation: Explanation, seen: _Seen) -> str:
    if seen.target is None:
        return " · ".join(filter(None, (explanation.name, explanation.model, "how the detector came to its boxes")))
    made = [each for each in explanation.attributions if isinstance(each, Attribution) and each.trace is not None]
    logit = number(next(each.score for each in made if each.target == seen.target))
    if not len(seen.rows):
        return f"{seen.target}: no candidate is near, logit {logit}"
    best = seen.rows[0]
    return f"{seen.target}: {seen.trace.classes[int(seen.trace.labels[best])]} {float(seen.trace.scores[best]):.2f}, logit {logit}"


# --- 1: where the network looks ---


def _draw_places(ax: Axes, seen: _Seen) -> None:
    """The best score at every place, or the anchors behind a target."""
    trace, rows = _looked(seen)
    starts = (trace.boxes if trace.priors is None else trace.priors)[rows]
    if seen.target is not None:
        _outlines(ax, starts, _shades(trace.scores[rows]), 0.9)
    places, best = _places(starts, trace.scores[rows])
    room = (_millimetres(ax)[0] * _millimetres(ax)[1] / max(1, len(places))) ** 0.5
    size = (min(max(room, LEAST_MARK), MARK) / POINT) ** 2
    x, y = array(places).T
    ax.scatter(x, y, s=0.2, color="0.35", linewidths=0, rasterized=True)
    shares = torch.ones_like(best) if seen.target is not None else best
    ax.scatter(x, y, s=size * array(shares), color=_shades(best.clamp(min=0.3)), linewidths=0, rasterized=True)


def _say_places(seen: _Seen) -> str:
    trace, rows = _looked(seen)
    candidates = trace.candidates[rows].unique().numel()
    if seen.target is not None:
        return _counted(candidates, trace.kind)
    starts = trace.boxes if trace.priors is None else trace.priors
    unranked = int((trace.fates == UNRANKED).sum()) if trace is seen.trace.first else 0
    places = f"{_counted(candidates, trace.kind)} at {_counted(len(_places(starts, trace.scores)[0]), 'place')}"
    return places + (f", the best {candidates - unranked} go on" if unranked else "")


def _looked(seen: _Seen) -> tuple[Trace, Tensor]:
    """The stage that looks first, and its rows."""
    trace, first = seen.trace, seen.trace.first
    if first is None:
        return trace, seen.rows
    return first, torch.arange(len(first.labels)) if seen.target is None else _parents(trace, seen.rows)


def _places(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The middles (P, 2) of boxes, each once, and the best score (P,) there."""
    places, owner = ((boxes[:, :2] + boxes[:, 2:]) / 2).round(decimals=1).unique(dim=0, return_inverse=True)
    return places, scores.new_zeros(len(places)).scatter_reduce(0, owner, scores, "amax")


# --- 2: what is proposed ---


def _draw_proposals(ax: Axes, seen: _Seen) -> None:
    trace, rows = seen.trace, _once(seen.trace, seen.rows)
    assert trace.priors is not None
    if trace.first is None:
        _outlines(ax, trace.priors[rows], _shades(torch.full((len(rows),), 0.7)), 0.4 if seen.target is None else 0.9)
        return
    parents = _parents(trace, rows)
    _outlines(ax, trace.priors[rows], _shades(trace.first.scores[parents]), 0.6 if seen.target is None else 0.9)
    if seen.target is not None and len(rows) and trace.first.priors is not None:
        _regression(ax, trace.first.priors[parents[0]], trace.priors[rows[0]], linewidth=0.5)


def _say_proposals(seen: _Seen) -> str:
    trace, first = seen.trace, seen.trace.first
    count = _counted(seen.trace.candidates[seen.rows].unique().numel(), "proposal")
    if first is None:
        return count if seen.target is not None else f"{count} from outside the network"
    if seen.target is None:
        return f"{count}; {_removed(first)}"
    if not len(seen.rows) or first.priors is None or trace.priors is None:
        return count
    return f"{count}; from its anchor (dotted): {_moved(first.priors[_parents(trace, seen.rows[:1])[0]], trace.priors[seen.rows[0]])}"


# --- 3: the boxes of the classes ---


def _draw_classes(ax: Axes, seen: _Seen) -> None:
    """As regressed for their class; the fainter, the lower the score."""
    trace, rows = seen.trace, _scored(seen) if seen.target is None else seen.rows
    rows = rows[trace.scores[rows].argsort(descending=True, stable=True)]
    colours = [seen.colours.get(each, "0.3") for each in trace.labels[rows].tolist()]
    strengths = [FAINT + (1 - FAINT) * score for score in trace.scores[rows].tolist()]
    _outlines(ax, trace.boxes[rows], [to_rgba(*each) for each in zip(colours, strengths, strict=True)], 0.8)
    if seen.target is not None:
        _labels(ax, trace.boxes[rows], [f"{score:.2f}" for score in trace.scores[rows].tolist()], colours)


def _say_classes(seen: _Seen) -> str:
    trace, above = seen.trace, _scored(seen)
    below = len(seen.rows) - len(above) if seen.target is not None else 0
    unranked = int((trace.fates[above] == UNRANKED).sum())
    said = f"{len(above)} above {trace.score_threshold:g}"
    return said + (f", {below} not" if below else "") + (f", {unranked} not among the best" if unranked else "")


def _scored(seen: _Seen) -> Tensor:
    """The rows that scored above the threshold and lie in the image."""
    return seen.rows[(seen.trace.scores[seen.rows] > seen.trace.score_threshold) & (seen.trace.fates[seen.rows] != EMPTY)]


# --- 4: suppression ---


def _draw_suppression(ax: Axes, seen: _Seen) -> None:
    """Kept boxes solid; what each removed dashed in its colour, with the IoU at the strongest."""
    trace, removed = seen.trace, _suppressed(seen)
    winners = trace.winners[removed]
    # those that suppressed what lies near a given box may lie elsewhere
    kept = torch.cat([seen.rows, winners]).unique()
    kept = kept[trace.fates[kept] == KEPT]
    shades = _winner_colours(trace, seen.colours)
    colours = [shades.get(each, BEYOND_ALL) for each in winners.tolist()]
    _outlines(ax, trace.boxes[removed], [to_rgba(each, 0.9) for each in colours], 0.6, linestyles=[(0, (3, 2))])
    _outlines(ax, trace.boxes[kept], [to_rgba(shades[each]) for each in kept.tolist()], 1.3)
    _labels(ax, trace.boxes[removed], [f"{each:.2f}" for each in trace.overlaps[removed].tolist()], colours)


def _say_suppression(seen: _Seen) -> str:
    if seen.target is None:
        return f"{_removed(seen.trace)}, dashed"
    ious = seen.trace.overlaps[_suppressed(seen)].tolist()
    if len(ious) > 1:
        return f"{len(ious)} suppressed, IoU {min(ious):.2f} to {max(ious):.2f}"
    return f"1 suppressed, IoU {ious[0]:.2f}" if ious else "nothing suppressed"


def _suppressed(seen: _Seen) -> Tensor:
    rows = seen.rows[seen.trace.fates[seen.rows] == SUPPRESSED]
    return rows[seen.trace.scores[rows].argsort(descending=True, stable=True)]


def _winner_colours(trace: Trace, colours: dict[int, str]) -> dict[int, str]:
    """Of each row that became a final box a shade of its class's colour, so that neighbours can be told apart."""
    chosen, counts = dict[int, str](), dict.fromkeys(colours, 0)
    rows = torch.where(trace.finals >= 0)[0]
    for row in rows[trace.finals[rows].argsort()].tolist():
        each = int(trace.labels[row])
        towards, share = SHADES[counts[each] % len(SHADES)]
        red, green, blue = (share * towards + (1 - share) * part for part in to_rgb(colours[each]))
        chosen[row] = to_hex((red, green, blue))
        counts[each] += 1
    return chosen


# --- 5: what is left ---


def _draw_final(ax: Axes, seen: _Seen) -> None:
    """What the detector reports; of one box also where its candidate started."""
    trace, found = seen.trace, _found(seen.trace)
    if seen.target is None and found.boxes is not None:
        colours = [seen.colours[each] for each in found.labels.tolist()]
        _outlines(ax, found.boxes, [to_rgba(each) for each in colours], 1.0)
        named = [f"{trace.classes[each]} {score:.2f}" for each, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)]
        _labels(ax, found.boxes, named if len(named) <= NAMED else [], colours, all_numbered=True)
        return
    if (start := _start(seen)) is not None:
        _regression(ax, *start, linewidth=0.8)
    draw_target(ax, found, seen.target or "", linewidth=1.0)


def _say_final(seen: _Seen) -> str:
    if seen.target is None:
        return _counted(int((seen.trace.finals >= 0).sum()), "box")
    if not bool((seen.trace.finals[seen.rows] >= 0).any()):
        return "no final box"
    start = _start(seen)
    return "one box" if start is None else f"from its {seen.trace.kind} (dotted): {_moved(*start)}"


def _start(seen: _Seen) -> tuple[Tensor, Tensor] | None:
    """Where the candidate of the final box started, and the box."""
    rows = seen.rows[seen.trace.finals[seen.rows] >= 0]
    return None if seen.trace.priors is None or not len(rows) else (seen.trace.priors[rows[0]], seen.trace.boxes[rows[0]])


# --- what the steps share ---


def _parents(trace: Trace, rows: Tensor) -> Tensor:
    """The rows of the first stage that became the candidates of ``rows``, each once and in their order."""
    if trace.first is None:
        return rows
    place = torch.full((int(trace.first.finals.max()) + 1,), -1)
    kept = torch.where(trace.first.finals >= 0)[0]
    place[trace.first.finals[kept]] = kept
    return place[trace.candidates[_once(trace, rows)]]


def _once(trace: Trace, rows: Tensor) -> Tensor:
    """The first of ``rows`` of each candidate."""
    seen: dict[int, int] = {}
    for row, candidate in zip(rows.tolist(), trace.candidates[rows].tolist(), strict=True):
        seen.setdefault(candidate, row)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


def _removed(trace: Trace) -> str:
    beyond = int((trace.fates == BEYOND).sum())
    said = f"{int((trace.fates == SUPPRESSED).sum())} suppressed at IoU > {trace.nms:g}"
    return said + (f", {beyond} beyond the best {trace.most}" if beyond else "")


def _moved(prior: Tensor, box: Tensor) -> str:
    """How a box was moved and scaled, in pixels."""
    shift = ((box[:2] + box[2:]) - (prior[:2] + prior[2:])) / 2
    scale = (box[2:] - box[:2]) / (prior[2:] - prior[:2])
    return f"moved {float(shift[0]):+.1f}, {float(shift[1]):+.1f} px, sides × {float(scale[0]):.2f}, {float(scale[1]):.2f}".replace(
        "-", "−"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "es" if noun.endswith("x") else "s")


def _shades(scores: Tensor) -> list[tuple[float, ...]]:
    """A colour for each score in [0, 1], red in proportion and fainter the weaker."""
    colours = map_rgb(array(scores)[None], 1.0)[0] / 255
    return [(*colour, FAINT + (1 - FAINT) * score) for colour, score in zip(colours.tolist(), scores.tolist(), strict=True)]


def _outlines(ax: Axes, boxes: Tensor, colours: Sequence[tuple[float, ...]], linewidth: float, **look: Any) -> None:
    """Boxes without filling, the first on top."""
    if len(boxes):
        corners: Any = array(boxes.flip(0))[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        ax.add_collection(
            PolyCollection(corners, facecolors="none", edgecolors=list(colours)[::-1], linewidths=linewidth, **look), autolim=False
        )


def _labels(ax: Axes, boxes: Tensor, texts: Sequence[str], colours: Sequence[str], all_numbered: bool = False) -> None:
    """Writes at the first boxes what fits without covering another; or at all of them, the number where nothing else fits."""
    placed: list[tuple[float, float, float, float]] = []
    for index, box in enumerate(boxes.tolist() if all_numbered else boxes[:LABELLED].tolist()):
        choices = [*texts[index : index + 1], *([str(index)] if all_numbered else [])]
        any(label(ax, text, box, colours[index], placed) for text in choices)


def _regression(ax: Axes, start: Tensor, end: Tensor, linewidth: float) -> None:
    """A dotted box, and arrows from two of its corners to those of the box that it became, where they are long enough to be seen."""
    _outlines(ax, start[None], [to_rgba("white", 0.8)], linewidth + 0.4)
    _outlines(ax, start[None], [to_rgba("black")], linewidth, linestyles=[(0, (1, 1.5))])
    (left, right), across = ax.get_xlim(), _millimetres(ax)[0]
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 5, "linewidth": linewidth, "color": "black", "shrinkA": 0, "shrinkB": 0}
    arrow["path_effects"] = halo(linewidth)
    for corner in (slice(0, 2), slice(2, 4)):
        if float((end[corner] - start[corner]).norm()) * across / (right - left) >= SHORTEST:
            (x1, y1), (x2, y2) = start[corner].tolist(), end[corner].tolist()
            made = ax.annotate("", xy=(x2, y2), xytext=(x1, y1), arrowprops=arrow)
            if made.arrow_patch is not None:  # an anchor may reach beyond the image
                made.arrow_patch.set_clip_path(ax.patch)


def _millimetres(ax: Axes) -> tuple[float, float]:
    return ax.bbox.width / ax.figure.dpi * INCH, ax.bbox.height / ax.figure.dpi * INCH


def _view(trace: Trace, rows: Tensor, target: str) -> View:
    """The part of the image, in its proportions, that holds all boxes behind a target."""
    height, width = trace.image_size
    boxes = [trace.boxes[rows], *([trace.priors[rows]] if trace.priors is not None else [])]
    if trace.first is not None and trace.first.priors is not None:
        boxes.append(trace.first.priors[_parents(trace, rows[:1])])
    parsed = Target.parse(target)
    if parsed.kind == "given":
        boxes.append(trace.boxes.new_tensor([parsed.place]))
    every = torch.cat(boxes).clamp(min=0)
    low, high = every[:, :2].amin(0), torch.minimum(every[:, 2:].amax(0), every.new_tensor([width, height]))
    share = min(1.0, max(1.25 * float((high[0] - low[0]) / width), 1.25 * float((high[1] - low[1]) / height), 1 / CLOSEST))
    sides = max(1, round(share * width)), max(1, round(share * height))
    x, y = (min(max(0, round(float(low[axis] + high[axis]) / 2 - sides[axis] / 2)), (width, height)[axis] - sides[axis]) for axis in (0, 1))
    return x, y, x + sides[0], y + sides[1]


def _ground(ax: Axes, image: Tensor | None, view: View, *, faint: bool) -> None:
    """The part of the image under a step; faint and grey where colours mean something else."""
    x1, y1, x2, y2 = view
    ax.set(xlim=(x1, x2), ylim=(y2, y1))
    ax.spines[:].set_color("0.6")
    if image is None:
        return
    picture = np.clip(array(shrink(ax, image[:, y1:y2, x1:x2])).transpose(1, 2, 0), 0, 1)
    if faint:
        picture = np.repeat(0.5 + 0.5 * (picture @ [0.299, 0.587, 0.114])[..., None], 3, -1)
    ax.imshow(picture, extent=(x1, x2, y2, y1), interpolation="antialiased", interpolation_stage="rgba", aspect="auto")


def _bar(page: Page, x: float, y: float, width: float, name: str) -> None:
    """What the shades of red mean."""
    inset = 2 * extent("0", SMALL, page.font)
    ax = page.axes(x + inset, y + (TEXT - KEY) / 2, width - 2 * inset, KEY)
    ax.imshow(map_rgb(np.linspace(0, 1, 64)[None], 1.0), aspect="auto", extent=(0, 1, 0, 1))
    page.text(x, y, ["0"])
    page.text(x + width, y, ["1"], ha="right")
    page.text(x + width / 2, y + TEXT, [name], ha="center")
