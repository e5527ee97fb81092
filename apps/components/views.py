"""A prediction on its picture, and a map: each as one picture that can be clicked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cached
import numpy as np
import pointing
import streamlit as st
from cached import Question
from PIL import ImageColor
from sources import Picture, as_rgb

from xaitools.attribution.base import METHODS
from xaitools.errors import XaiError
from xaitools.report.colours import class_colours, map_rgb, overlay_rgb
from xaitools.report.figures import figure_bytes, number
from xaitools.report.ledger import ledger_figure
from xaitools.report.panels import TITLES, panels_figure
from xaitools.report.shares import is_lrp, ledger_words
from xaitools.report.trace import trace_figure
from xaitools.targets import Target, bind
from xaitools.types import Attribution, Prediction, Refusal

from .picture import Bar, Box, Chip, picture
from .words import note

Pick = Callable[[Mapping[str, Any]], None]
SHOWN = 5
"""Most probable classes of a classifier that have a button."""
LABELLED = 12
"""With more boxes than these, only numbers stand at them."""
MASKED = 90
"""How much of 255 the colour of a mask covers."""


def show_prediction(
    shot: Picture, prediction: Prediction, target: Target | None = None, *, count: int | None = None, strength: float = 0.45,
    on_pick: Pick | None = None, key: str = "picture",
) -> None:  # fmt: skip
    """The prediction on the picture: of boxes the first ``count`` (those with a score of a half), of segments with ``strength``."""
    if prediction.semantic is not None:
        show_segments(shot, prediction, target, strength, on_pick, key)
    elif prediction.boxes is not None:
        show_boxes(shot, prediction, target, int((prediction.scores >= 0.5).sum()) if count is None else count, on_pick, key)
    else:
        show_classes(shot, prediction, target, on_pick, key)


def show_boxes(shot: Picture, prediction: Prediction, target: Target | None, count: int, on_pick: Pick | None, key: str) -> None:
    """The first ``count`` boxes, and the chosen one; where the model finds masks, with these."""
    colours = class_colours(prediction.labels.tolist())
    boxes, seen = [], []
    for index, (label, xyxy) in enumerate(zip(prediction.labels.tolist(), prediction.boxes.tolist(), strict=True)):
        box = Target("box", index=index)
        chosen = target is not None and target.kind in pointing.OF_A_BOX and target.index == index
        if index < count or chosen:
            seen.append(index)
            title = pointing.titled(box, prediction)
            written = title if count <= LABELLED or chosen else str(index)
            boxes.append(Box(tuple(xyxy), title, written, colours[label], ink(colours[label]), chosen))
    if target is not None and target.kind == "given":
        boxes.append(Box(target.place, "the drawn box", target.name or "", "#ffffff", chosen=True))
    layer = None
    if prediction.masks is not None:
        masks, layer = prediction.masks.numpy(), np.zeros((*prediction.image_size, 4), np.uint8)
        for index in reversed(seen):  # the surest on top
            layer[masks[index]] = (*ImageColor.getrgb(colours[int(prediction.labels[index])]), MASKED)
        if target is not None and target.kind == "mask":
            layer[_outline(masks[target.index])] = 255
    picture(
        shot.rgb, key=key, layer=layer, boxes=boxes, draws=True, on_pick=on_pick,
        alt=f"{shot.sample.id} with {count} boxes: {', '.join(box.name for box in boxes[:LABELLED]) or 'none'}.",
        hint=f"{count} of {len(prediction.labels)} boxes" + (" · click one, or drag around what was missed" if on_pick else ""),
    )  # fmt: skip


def show_segments(shot: Picture, prediction: Prediction, target: Target | None, strength: float, on_pick: Pick | None, key: str) -> None:
    """Every class in its colour, ``strength`` 0 to 1; a button for each."""
    labels, semantic = prediction.labels.tolist(), prediction.semantic.numpy()
    colours = class_colours(labels)
    layer = np.zeros((*semantic.shape, 4), np.uint8)
    for label in labels:
        if label != prediction.background:
            layer[semantic == label] = (*ImageColor.getrgb(colours[label]), round(255 * strength))
    if target is not None and target.kind == "region":
        layer[_outline(bind(target, prediction, shot.sample, shot.truth_classes).region.numpy())] = 255
    chips = []
    for label in labels:
        name, share = prediction.classes[label], float((semantic == label).mean())
        chosen = target is not None and pointing.class_of(target, prediction) == name
        chips.append(Chip(f"{name} {share:.1%}", str(Target("region", name)), colours[label], chosen))
    picture(
        shot.rgb, key=key, layer=layer, chips=chips, point=_point(target), on_pick=on_pick,
        alt=f"{shot.sample.id} divided into {', '.join(chip.label for chip in chips)}.",
        hint="click a place, or choose a segment below" if on_pick else "",
    )  # fmt: skip


def show_classes(shot: Picture, prediction: Prediction, target: Target | None, on_pick: Pick | None, key: str) -> None:
    """The picture as it is; a button for each of the most probable classes."""
    chips = []
    for label, score in zip(prediction.labels[:SHOWN].tolist(), prediction.scores[:SHOWN].tolist(), strict=True):
        name = prediction.classes[label]
        chosen = target is not None and target.name == name
        chips.append(Chip(f"{name} {score:.1%}", str(Target("class", name)), "#808080", chosen))
    picture(
        shot.rgb, key=key, chips=chips, on_pick=on_pick, alt=f"{shot.sample.id}: {', '.join(chip.label for chip in chips)}.",
        hint="the answer belongs to the whole picture; choose a class below" if on_pick else "",
    )  # fmt: skip


def _point(target: Target | None) -> tuple[int, int] | None:
    return (int(target.place[0]), int(target.place[1])) if target is not None and target.kind == "pixel" else None


def _box(target: Target, prediction: Prediction) -> tuple[float, ...]:
    if target.kind in pointing.OF_A_BOX:
        return tuple(prediction.boxes[target.index].tolist())
    return target.place if target.kind == "given" else ()


def _outline(region: np.ndarray) -> np.ndarray:
    """The pixels of ``region`` that touch its outside."""
    padded = np.pad(region, 1, mode="edge")
    return region & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def ink(colour: str) -> str:
    red, green, blue = ImageColor.getrgb(colour)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def answer(question: Question, preview: Callable[[Attribution], None] | None = None) -> Attribution | Refusal:
    """The map, or the one line that says why there is none; a bar shows how far it is.

    What takes its time is seen in coarse windows first, then in finer ones, through ``preview``.
    """
    bar, place = st.empty(), st.empty()
    try:
        for wide in cached.coarser(question) if preview is not None and not cached.known(question) else ():
            rough = cached.explain(wide)
            with place.container():
                note(f"windows of {rough.params['window']} pixels first; finer ones follow")
                preview(rough)
        return cached.explain(question, lambda done, total: bar.progress(done / total, f"{done} of {total}"))
    except XaiError as error:
        return Refusal(question.target, question.method, str(error))
    finally:
        bar.empty()
        place.empty()


def show_map(
    shot: Picture, prediction: Prediction, result: Attribution, limit: float, blend: float, on_pick: Pick | None = None, key: str = "map",
    least: float = 0.0,
) -> None:  # fmt: skip
    """A map whose colours end at ``limit``; ``blend`` leads from the picture (0) over the overlay (0.5) to the map (1).

    What is weaker than the share ``least`` of the limit is not shown.
    """
    target, values = Target.parse(result.target), result.values.numpy()
    y, x = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    colours = tuple(f"rgb({red} {green} {blue})" for red, green, blue in map_rgb(np.linspace(-1, 1, 41)[None], 1)[0])
    picture(
        _blended(shot, np.where(np.abs(values) >= least * limit, values, 0), limit, blend), key=f"{key} {result.method}", on_pick=on_pick,
        point=_point(target), boxes=[Box(box, "", "", "#ffffff")] if (box := _box(target, prediction)) else (),
        bar=Bar(number(-limit), number(limit), colours),
        alt=f"{result.method} map for {result.target}: {number(values.min())} to {number(values.max())}, strongest at x {x}, y {y}.",
    )  # fmt: skip
    total = float(values.sum(dtype=np.float64))
    params = ", ".join(f"{name} {value}" for name, value in result.params.items())
    hidden = f"weaker than {number(least * limit)} not shown" if least else ""
    note(
        f"{_reading(result)} {number(result.score)}",
        f"sum of the map {number(total)}",
        f"{result.seconds:.2f} s",
        params,
        hidden,
        *result.notes,
    )
    note((METHODS[result.method].function.__doc__ or "").partition("\n")[0])
    if result.ledger:
        show_ledger(result, total)


def show_ledger(result: Attribution, total: float) -> None:
    """Where the score went, in words, as bars of the layers and as numbers."""
    layers = is_lrp(result.method) and result.score
    words = ledger_words(result.score, total, result.ledger or ()) if layers else ""
    if words:
        note(words)
    with st.popover("Ledger"):
        note("What each layer absorbed; with the sum of the map it makes up the score")
        if layers:
            st.image(figure_bytes(ledger_figure(result, width_mm=120.0), "png", 150), alt=f"Bars of the layers: {words}.")
        st.dataframe([{"layer": layer, "absorbed": absorbed} for layer, absorbed in result.ledger or ()], hide_index=True)


def show_made(shot: Picture, result: Attribution) -> None:
    """What a method made beside its map: five panels, a picture of its own, the steps of a detector."""
    about = f"{result.method} for {result.target}"
    if result.panels is not None:
        st.image(figure_bytes(panels_figure(result), "png", 150), width="stretch", alt=f"The five panels of {about}: {', '.join(TITLES)}.")
    if result.image is not None:
        st.image(as_rgb(result.image), width=320, alt=f"The picture that {about} made.")
    if result.trace is not None:
        drawing = trace_figure(result, image=shot.sample.image)
        st.image(figure_bytes(drawing, "png", 150), width="stretch", alt=f"How the detector came to its boxes, step by step, {about}.")


def _reading(result: Attribution) -> str:
    """What the explained number is."""
    reading, target = str(result.params.get("score", "logit")), Target.parse(result.target)
    if reading != "logit":
        return reading
    return "edge output" if target.edge else "logit" if target.versus is None else "logit difference"


def _blended(shot: Picture, values: np.ndarray, limit: float, blend: float) -> np.ndarray:
    overlay = overlay_rgb(shot.sample.image, values, limit)
    below, above, share = (shot.rgb, overlay, 2 * blend) if blend <= 0.5 else (overlay, map_rgb(values, limit), 2 * blend - 1)
    return (below * (1 - share) + above * share).round().astype(np.uint8)
