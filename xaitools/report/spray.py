"""What SpRAy found, as pictures and as a section of a page: clusters of decisions, what they share, and what came of moving it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from ..audit.decisions import AROUND, PARTS, SIDE
from ..audit.spray import Member
from ..audit.transplant import Case
from ..types import Prediction
from .colours import CLASSES, array, limit_of, map_rgb
from .page import FONT, SIZE, SMALL, TINY, Drawing, Page, style
from .parts import Facts, data_uri, e, interval, section, table, value
from .prediction import draw_prediction, halo, show
from .probe_figures import SURE

WIDTH, MARGIN, GAP = 180.0, 2.0, 2.0
"""Millimetres."""

SCATTER, PANEL, HEAD = 44.0, 19.5, 9.5
MOST_CLUSTERS, MOST_MEMBERS, MOST_CASES = 6, 4, 4

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Of clusters, so that they are told apart without colour too."""

INK, PALE = "0.15", "0.45"
SHARED = "#d55e00"
"""The place that a cluster shares."""

LACKS = {
    "size": "too few", "excess": "no more there than elsewhere", "times": "not much more there than elsewhere",
    "chance": "no more than by chance", "widest": "at no one place",
    "having": "not in most members", "stability": "not found again in subsets",
    "eigengap": "not set apart", "confidence": "the model is less sure there",
}  # fmt: skip
"""The tests of ``Criteria`` that a cluster fails, in words."""


def spray_figure(name: str, found: Mapping[str, Any], members: Sequence[Sequence[Member]] = ()) -> Drawing:
    """Of one class, ``found`` by ``spray``: the decisions in two dimensions, and of each cluster its mean maps and members.

    ``members`` are those to look at of each cluster, in its order (``members_of``); without them, there are no images.
    """
    clusters = found["clusters"][:MOST_CLUSTERS]
    height = max(SCATTER + 18, 8 + len(clusters) * (PANEL + HEAD)) + MARGIN
    with style(FONT):
        page = Page(WIDTH, height, 200, FONT)
        _scatter(page, name, found)
        x = MARGIN + SCATTER + 5
        shared = ", shared place (orange)" if any(each["suspicious"] for each in clusters) else ""
        places = [x + number * (PANEL + GAP) for number in range(2 + MOST_MEMBERS)]
        page.text(places[0], MARGIN, ["in the image*"], SMALL, color=PALE)
        page.text(places[1], MARGIN, ["about the object"], SMALL, color=PALE)
        page.text(places[2], MARGIN, [f"members: object (white){shared}"] if members else [], SMALL, color=PALE)
        y = MARGIN + 4.5
        for number, cluster in enumerate(clusters):
            _cluster(page, places, y, number, cluster, members[number] if number < len(members) else ())
            y += PANEL + HEAD
        note = ["* without the object and its surroundings"]
        if len(found["clusters"]) > len(clusters):
            note = [f"{note[0]}; {len(found['clusters']) - len(clusters)} smaller clusters are not shown"]
        page.text(places[0], y - 1.5, note, TINY, color=PALE)
        return page.drawing


def _scatter(page: Page, name: str, found: Mapping[str, Any]) -> None:
    view = found["views"][found["view"]]
    page.text(MARGIN, MARGIN, page.fit(f"{name}: {found['n']} decisions", SCATTER, SIZE, weight="bold"), SIZE, weight="bold")
    ax = page.axes(MARGIN, MARGIN + 5, SCATTER, SCATTER)
    points = view["points"]
    for number, cluster in enumerate(found["clusters"]):
        xy = np.array([each[3:] for each in points if each[2] == number])
        colour = CLASSES[number % len(CLASSES)]
        face = colour if cluster["suspicious"] else "none"
        ax.scatter(xy[:, 0], xy[:, 1], s=11, marker=MARKERS[number % len(MARKERS)], facecolors=face, edgecolors=colour, linewidths=0.7)
    ax.margins(0.08)
    ax.spines[:].set_color("0.6")
    stability = view["stability"]
    words = [
        f"t-SNE of the maps {'in the image' if found['view'] == 'place' else 'about the object'}",
        f"eigengap {view['eigengap']:.2f}, {len(found['clusters'])} cluster{'s' if len(found['clusters']) != 1 else ''}",
        f"Rand index with subsets {stability['mean']:.2f}",
        "filled: suspicious" if any(each["suspicious"] for each in found["clusters"]) else "none is suspicious",
    ]
    page.text(MARGIN, MARGIN + SCATTER + 6, [line for each in words for line in page.fit(each, SCATTER, SMALL)], SMALL, color=PALE)


def _cluster(page: Page, places: Sequence[float], y: float, number: int, cluster: Mapping[str, Any], members: Sequence[Member]) -> None:
    colour = CLASSES[number % len(CLASSES)]
    gathers = cluster["gathers"]
    verdict = "suspicious" if cluster["suspicious"] else f"not suspicious: {LACKS[cluster['lacks'][0]]}"
    others = "" if gathers["others"] is None else f" (others {100 * gathers['others']:.1f} %)"
    said = f"{cluster['size']} decisions, {verdict}"
    there = f"relevance where it gathers most {100 * gathers['mass']:.1f} %{others}, chance {100 * gathers['chance']:.1f} %"
    width = page.width - places[0] - MARGIN
    page.drawing.text(places[0] / page.width, 1 - (y + 1.8) / page.height, "■", size=SMALL, color=colour, va="baseline")
    page.text(places[0] + 3, y, page.fit(said, width - 3, SMALL, weight="bold"), SMALL, weight="bold")
    page.text(places[0] + 3, y + 3, page.fit(there, width - 3, SMALL), SMALL, color=PALE)
    top = y + 6.5
    for x, view in zip(places, ("place", "object"), strict=False):
        ax = page.axes(x, top, PANEL, PANEL)
        values = np.array(cluster["maps"][view])
        show(ax, map_rgb(values, limit_of(values)), (SIDE, SIDE))
        if view == "object":
            rim = SIDE * AROUND / (1 + 2 * AROUND)
            ax.add_patch(Rectangle((rim, rim), SIDE - 2 * rim, SIDE - 2 * rim, fill=False, edgecolor=INK, linewidth=0.5, linestyle=":"))
        if cluster["suspicious"] and gathers["view"] == view:
            _box(ax, [each * SIDE for each in gathers["xyxy"]], SHARED)
    for x, member in zip(places[2:], members[:MOST_MEMBERS], strict=False):
        height, width = member.image.shape[-2:]
        scale = PANEL / max(height, width)
        ax = page.axes(x, top, scale * width, scale * height)
        show(ax, np.clip(array(member.image).transpose(1, 2, 0), 0, 1), (height, width))
        _box(ax, member.box, "white")
        if cluster["suspicious"] and member.shared is not None:
            _box(ax, member.shared, SHARED)


def _box(ax: Any, box: Sequence[float], colour: str) -> None:
    left, top, right, bottom = box
    around = [] if colour == "white" else halo(1.0)
    width = 0.6 if colour == "white" else 1.0
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, path_effects=around))


def transplant_figure(name: str, cases: Sequence[Case]) -> Drawing:
    """A row for each image: before, after, and after the control, with what the model says; the place that was changed in orange."""
    shown = cases[:MOST_CASES]
    cell, words = 34.0, 9.0
    with style(FONT):
        page = Page(2 * MARGIN + 40 + 3 * (cell + GAP), 2 * MARGIN + 5 + len(shown) * (cell + words), 200, FONT)
        columns = [MARGIN + 40 + number * (cell + GAP) for number in range(3)]
        for x, head in zip(columns, ("before", "after", "control"), strict=True):
            page.text(x, MARGIN, [head], SMALL, color=PALE)
        y = MARGIN + 4.5
        for case in shown:
            page.text(MARGIN, y, [line for each in _story(name, case) for line in page.fit(each, 38, SMALL, 3)], SMALL)
            boxes = (None, case.xyxy, case.elsewhere)
            for x, image, prediction, box in zip(columns, case.images, case.predictions, boxes, strict=True):
                height, width = image.shape[-2:]
                scale = cell / max(height, width)
                ax = page.axes(x, y, scale * width, scale * height)
                draw_prediction(ax, image, _sure(prediction))
                if box is not None:
                    _box(ax, box, SHARED)
                page.text(x, y + scale * height + 0.8, page.fit(answer(prediction), cell, SMALL, 2), SMALL)
            y += cell + words
        return page.drawing


def _story(name: str, case: Case) -> Iterator[str]:
    if case.kind == "pasted":
        yield f"{case.item} with the place of {case.donor}"
        yield f"{name} appears" if case.changed else f"no {name} appears"
        yield f"control: of {case.other}, {'it appears too' if case.control else 'it does not'}"
    else:
        yield f"{case.item} without the place"
        yield f"{name} is lost" if case.changed else f"{name} is kept"
        yield f"control: as much elsewhere, {'it is lost too' if case.control else 'it is kept'}"


def _sure(prediction: Prediction, score: float = SURE) -> Prediction:
    """The prediction with the boxes alone that count."""
    if prediction.boxes is None:
        return prediction
    kept = prediction.scores >= score
    parts = {part: each[kept] for part in ("labels", "scores", "boxes", "masks") if (each := getattr(prediction, part)) is not None}
    return replace(prediction, origins=None, anchors=None, cells=None, **parts)


def answer(prediction: Prediction) -> str:
    """What the model says, in a line."""
    if prediction.task == "classification":
        return f"{prediction.classes[int(prediction.labels[0])]} {float(prediction.scores[0]):.2f}"
    if prediction.semantic is not None:
        size = prediction.semantic.numel()
        areas = {
            label: int((prediction.semantic == label).sum()) / size
            for label in prediction.labels.tolist()
            if label != prediction.background
        }
        return ", ".join(f"{prediction.classes[label]} {100 * area:.0f} %" for label, area in areas.items() if area >= 0.005) or "nothing"
    found = _sure(prediction)
    rows = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    return ", ".join(f"{found.classes[label]} {score:.2f}" for label, score in rows) or "nothing"


# -- the section of a page


def spray_section(
    found: Mapping[str, Facts], criterion: str, transplants: Mapping[str, Sequence[Facts]] | None = None, note: str = "",
    pictures: Mapping[str, Sequence[bytes]] | None = None,
) -> str:  # fmt: skip
    """``found`` by ``spray``; ``transplants`` of the suspicious clusters of each class, in their order; PNG ``pictures`` of each class.

    ``note`` says why there are no clusters, or how the maps were made.
    """
    heading = "Clusters of decisions (SpRAy)"
    notes = f"<p><small>{e(note)}</small></p>" if note else ""
    if not found:
        return section(heading, notes or "<p><small>Not measured.</small></p>")
    said = (
        "Decisions of one class, grouped by where their relevance lies (Lapuschkin et al. 2019). " + criterion + " Relevance is in percent "
        "of what speaks for the decision; the others are all other decisions of the model."
    )
    heads = [
        "class",
        "cluster",
        "decisions",
        "at one place:<br>members / others / chance",
        "difference [95 %]",
        "found again",
        "verdict",
    ]
    rows = [row for name, facts in found.items() for row in _rows(name, facts)]
    moved = _moved(transplants or {})
    images = "".join(
        f'<img alt="{e(f"clusters of {name}, and what came of moving what they share")}" src="{data_uri(png)}">'
        for name, pngs in (pictures or {}).items() for png in pngs
    )  # fmt: skip
    return section(heading, f"<p>{e(said)}</p>", notes, table(heads, rows, right={2, 3, 4, 5}), moved, images)


def _rows(name: str, facts: Facts) -> Iterator[Sequence[str] | str]:
    if not facts["clusters"]:
        yield [e(name), "", str(facts["n"]), "", "", "", f"<small>{e(facts['note'])}</small>"]
    for number, each in enumerate(facts["clusters"], 1):
        gathers = each["gathers"]
        others = "–" if gathers["others"] is None else f"{100 * gathers['others']:.1f}"
        ci = None if gathers["ci"] is None else [100 * end for end in gathers["ci"]]
        difference = "" if gathers["difference"] is None else f"{100 * gathers['difference']:z.1f} {_ends(ci)}"
        verdict = "<b>suspicious</b>" if each["suspicious"] else e("; ".join(LACKS[lack] for lack in each["lacks"]))
        place = f"{100 * gathers['mass']:.1f} / {others} / {100 * gathers['chance']:.1f}"
        yield [e(name) if number == 1 else "", str(number), str(each["size"]), place, difference, f"{each['stability']:.2f}", verdict]


def _ends(ci: Sequence[float] | None) -> str:
    return "" if ci is None else f"[{ci[0]:z.1f}, {ci[1]:z.1f}]"


MOVED = {
    "appears": "pasted elsewhere: the class appears", "lost": "pasted elsewhere: the right one is lost",
    "removed": "removed: the decision is lost",
}  # fmt: skip
FLIPS = {True: "<b>flips decisions</b>", False: "flips none beyond the control", None: "no image could be used"}


def _moved(transplants: Mapping[str, Sequence[Facts]]) -> str:
    rows = [
        [e(name), str(number), words, _rate(facts[key]), _rate(facts[key]["control"]), str(facts[key]["n"]), FLIPS[facts["flips"]]]
        for name, some in transplants.items()
        for number, facts in enumerate(some, 1)
        for key, words in MOVED.items()
    ]
    if not rows:
        return ""
    criterion = next(facts["criterion"] for some in transplants.values() for facts in some)
    heads = ["class", "", "what was done", "share of images", "control", "images", "both"]
    return f"<h3>What suspicious clusters share, moved</h3><p>{e(criterion)}</p>{table(heads, rows, right={3, 4, 5})}"


def _rate(share: Facts) -> str:
    return f"{value(share['value'])} {interval(share['ci'])}"


# -- reliance

NAMES = {
    "object": "its object", "declared": "declared region", "others": "other objects", "ring": "surroundings", "border": "image border",
    "rest": "elsewhere",
}  # fmt: skip


def reliance_section(found: Mapping[str, Facts]) -> str:
    """The shares of ``reliance``, a row for each class: relevance over area; bold where the interval of the difference lies above 0."""
    if not found:
        return ""
    said = (
        "Where the relevance of each class's decisions lies: percent of what speaks for the decision, and in small print the percent of "
        "the image, which is what chance would give. Bold is more than chance, by the 95 % interval over images."
    )
    rows = []
    for name, facts in found.items():
        cells = [_share(facts["parts"][part]) for part in PARTS]
        rows.append([e(name), *cells, str(facts["n"])])
    return section("What decisions rest on", f"<p>{e(said)}</p>", table(["class", *(NAMES[part] for part in PARTS), "decisions"], rows,
                                                                     right=set(range(1, len(PARTS) + 2))))  # fmt: skip


def _share(part: Facts) -> str:
    if part["value"] is None:
        return "<small>none</small>"
    ci = part["beyond"]["ci"]
    shown = f"{100 * part['value']:.1f}"
    return f"{f'<b>{shown}</b>' if ci is not None and ci[0] > 0 else shown}<br><small>of {100 * part['chance']:.1f}</small>"
