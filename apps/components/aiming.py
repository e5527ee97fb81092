"""What is explained.  The target string in the session (and the address) is the state; pictures and fields write it.

Every field reads the target when the page is drawn and writes it when the user changes the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pointing
import streamlit as st
from sources import Picture

from xaitools.errors import TargetError
from xaitools.targets import EDGES, Target, bind
from xaitools.types import Prediction

SCORE, MASK = "class score", "mask"
AGAINST = {None: "nothing", "": "all other classes"}
KINDS = {"segment": "region", "class": "class"}
HELP = (
    "top, class:NAME, pixel:X,Y, region:NAME, region:gt:NAME, box:I, box:I:left, box:X1,Y1,X2,Y2:NAME; "
    "add :vs:NAME for the difference to another class, :vs: alone to all others"
)
NOTHING_HERE = "No box here. Click one, or draw a box around what the model missed."
WHOLE_PICTURE = "A classifier answers for the whole picture. Choose a class below it."
state = st.session_state


def aim(target: Target) -> None:
    """From here on ``target`` is explained."""
    state.target = str(target)


def point_at(prediction: Prediction, pick: Mapping[str, Any]) -> None:
    """A click, a drawn box or a chip on any of the pictures."""
    name = state.get("drawn", prediction.classes[0])
    target = pointing.picked(prediction, pick, unit=state.get("click", "pixel"), name=name, shown=shown(prediction))
    if target is None:
        st.toast(NOTHING_HERE if prediction.boxes is not None else WHOLE_PICTURE)
        return
    if prediction.semantic is not None and "x" in pick:
        state.x, state.y = int(pick["x"]), int(pick["y"])
    aim(target)


def shown(prediction: Prediction) -> int:
    """How many boxes are drawn: the first ones, since they are sorted by score."""
    return int((prediction.scores >= state.get("least", 0.5)).sum())


def choose_target(picture: Picture, prediction: Prediction) -> Target | TargetError:
    """The target that is explained, in a form that belongs to the prediction, or why it cannot be."""
    if state.pop("moved", False) and isinstance(_found(state.get("target", ""), picture, prediction), TargetError):
        state.target = ""
    text = st.text_input("Target", key="target", bind="query-params", placeholder="top", max_chars=300, help=HELP)
    target = _found(text, picture, prediction)
    known = None if isinstance(target, TargetError) else target
    if prediction.boxes is not None:
        _detection_fields(prediction, known)
    elif prediction.semantic is not None:
        _segmentation_fields(prediction, known)
    else:
        _class_fields(prediction, known)
    return target


def _found(text: str, picture: Picture, prediction: Prediction) -> Target | TargetError:
    try:
        target = pointing.resolve(text.strip() or "top", prediction)
        bind(target, prediction, picture.sample, picture.truth_classes)
    except TargetError as error:
        return error
    return target


def _detection_fields(prediction: Prediction, target: Target | None) -> None:
    of_box = target is not None and target.kind in pointing.OF_A_BOX
    whole = target and replace(target, kind="box" if of_box else target.kind, edge=None, versus=None)
    options = [Target("box", index=index) for index in range(len(prediction.labels))]
    texts = dict.fromkeys(map(str, [whole, *options] if whole and whole not in options else options))
    state.box = str(whole) if whole else None
    st.selectbox(
        "Box", list(texts), index=None, key="box", placeholder="click, draw or choose", on_change=_box_chosen,
        format_func=lambda text: pointing.titled(Target.parse(text), prediction),
    )  # fmt: skip
    first, second = st.columns(2)
    state.edge = MASK if target and target.kind == "mask" else (target and target.edge) or SCORE
    own = [*([MASK] if prediction.cells is not None else []), *EDGES] if of_box else []
    first.selectbox("Explain its", [SCORE, *own], key="edge", on_change=partial(_part_chosen, target))
    with second:
        _contrast_field(prediction, target)
    first, second = st.columns(2, vertical_alignment="bottom")
    first.selectbox(
        "Class of a drawn box", prediction.classes, key="drawn", bind="query-params", on_change=partial(_drawn_class_chosen, target)
    )
    with second.popover("By numbers", width="stretch"):
        _number_fields(prediction, target)


def _box_chosen() -> None:
    state.target = state.box or ""


def _part_chosen(target: Target) -> None:
    """Its class score, its mask or one of its edges; a drawn box has its class score alone."""
    kind = "mask" if state.edge == MASK else "box" if target.kind == "mask" else target.kind
    aim(replace(target, kind=kind, edge=state.edge if state.edge in EDGES else None, versus=None))


def _drawn_class_chosen(target: Target | None) -> None:
    if target is not None and target.kind == "given":
        aim(replace(target, name=state.drawn))


def _number_fields(prediction: Prediction, target: Target | None) -> None:
    height, width = prediction.image_size
    start = target.place if target and target.kind == "given" else (0, 0, width, height)
    columns, place = st.columns(2) * 2, []
    for column, name, limit, value in zip(columns, ("x1", "y1", "x2", "y2"), (width, height, width, height), start, strict=True):
        place.append(column.number_input(name, 0.0, float(limit), float(value), 1.0, format="%.1f"))
    st.button("Explain this box", on_click=lambda: aim(Target("given", state.drawn, place=tuple(place))))


def _segmentation_fields(prediction: Prediction, target: Target | None) -> None:
    height, width = prediction.image_size
    x, y = target.place if target and target.kind == "pixel" else (state.get("x", width // 2), state.get("y", height // 2))
    state.x, state.y = min(int(x), width - 1), min(int(y), height - 1)
    st.segmented_control(
        "A click explains its", pointing.UNITS, default="pixel", required=True, key="click", bind="query-params",
        on_change=partial(_unit_chosen, prediction, target),
    )  # fmt: skip
    first, second, third = st.columns([2, 2, 4])
    first.number_input("x", 0, width - 1, key="x", on_change=partial(_place_chosen, prediction))
    second.number_input("y", 0, height - 1, key="y", on_change=partial(_place_chosen, prediction))
    with third:
        _contrast_field(prediction, target)


def _class_fields(prediction: Prediction, target: Target | None) -> None:
    names = [prediction.classes[label] for label in prediction.labels.tolist()]
    state.classed = target.name if target else names[0]
    first, second = st.columns(2)
    first.selectbox("Class", names, key="classed", on_change=lambda: aim(Target("class", state.classed)))
    with second:
        _contrast_field(prediction, target)


def _place_chosen(prediction: Prediction) -> None:
    point_at(prediction, {"x": state.x, "y": state.y})


def _unit_chosen(prediction: Prediction, target: Target | None) -> None:
    """The chosen class or place stays, what of it is explained changes."""
    if target is not None and target.kind in KINDS.values() and state.click in KINDS:
        aim(replace(target, kind=KINDS[state.click], truth=False))
    else:
        _place_chosen(prediction)


def _contrast_field(prediction: Prediction, target: Target | None) -> None:
    own = target and pointing.class_of(target, prediction)
    names = {**AGAINST, **{name: name for name in prediction.classes if name != own}} if target and not target.edge else AGAINST
    words = {word: name for name, word in names.items()}
    state.against = names.get(target.versus, target.versus) if target else AGAINST[None]
    st.selectbox(
        "Against", list(words), key="against", disabled=target is None or target.edge is not None or target.kind == "mask",
        help="Explain the difference to another class instead of the class alone",
        on_change=lambda: aim(replace(target, versus=words[state.against])) if target else None,
    )  # fmt: skip
