"""Which model, which picture: the two choices that every page begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cached
import sources
import streamlit as st

from xaitools import zoo
from xaitools.errors import XaiError

from .words import note, refusal

DATA_HELP = (
    "A dataset that is here, an upload, the camera, or typed: LAYOUT:FOLDER#SPLIT of a folder in the data folder, "
    "or drawn scenes such as scenes:test?n=50&shortcut=tag&rho=1"
)
MODEL_HELP = (
    "A model of the zoo, or typed: torchvision:NAME?weights=none, smp:NAME?encoder=..&classes=..&weights=none, or with "
    "weights=FILE.safetensors of a file in the data or model folder"
)


def moved() -> None:
    """Another model or picture: a target that is not in the new prediction is let go."""
    st.session_state.moved = True


def choose_model() -> cached.Loaded | None:
    """A model of the zoo or one that a string names, or None after saying why there is none."""
    cards = {name: zoo.card(name) for name in zoo.names()}
    if not cards:
        refusal("there is no trained model here; train one with: xaitools train RECIPE --out DIR")
        return None
    own = [name for name in cards if family_of(cards[name]) == "scenes"]
    own.sort(key=lambda name: cards[name]["task"] == "classification")  # a page of boxes or segments shows more
    _recall("model", [*own, *cards][0])
    name = st.selectbox(
        "Model", list(dict.fromkeys([*cards, st.session_state.model])), key="model", on_change=_model_chosen, args=(cards,),
        format_func=lambda name: _title(cards[name]) if name in cards else name, accept_new_options=True, help=MODEL_HELP,
    )  # fmt: skip
    _address("model")
    try:
        loaded = cached.load(name)
    except XaiError as error:
        refusal(error)
        return None
    card, classes = cards.get(name), f"classes {', '.join(loaded.model.classes)}"
    if card is None:
        note(loaded.model.task, classes if len(loaded.model.classes) <= 40 else f"{len(loaded.model.classes)} classes")
    else:
        note(f"trained on {card['data']['train'].replace('{data}/', '')}", _score(card, certainty=True), classes)
    return loaded


def _model_chosen(cards: Mapping[str, Any]) -> None:
    """Pictures of the kind that the model was made for, unless they are already."""
    moved()
    card, here = cards.get(st.session_state.model), st.session_state.get("data")
    if card is None or here is None or here in sources.SENT or sources.family(here) == family_of(card):
        return
    of_its_kind = [text for text in sources.offered() if sources.family(text) == family_of(card)]
    st.session_state.data = next((text for text in of_its_kind if text.endswith("test")), [*of_its_kind, here][0])


def family_of(card: Mapping[str, Any]) -> str:
    """The kind of pictures that a model of the zoo was made for."""
    return sources.family(card["data"]["test"].replace("{data}/", ""))


def _title(card: Mapping[str, Any]) -> str:
    return " · ".join((card["name"], card["task"], _score(card)))


def _score(card: Mapping[str, Any], certainty: bool = False) -> str:
    row = card["scores"]["test"]
    return f"{row['metric']} {row['value']:.3f}" + (f" [{row['ci'][0]:.3f}, {row['ci'][1]:.3f}], n = {row['n']}" if certainty else "")


def choose_picture() -> sources.Picture | None:
    """A picture, or None after saying why there is none."""
    wide, narrow = st.columns([5, 3])
    with wide:
        text = _pictures_field()
    try:
        with narrow:
            picture = _sent(text) if text in sources.SENT else _sampled(text)
    except XaiError as error:
        refusal(error)
        return None
    if text not in sources.SENT:
        st.query_params.pop("picture", None)
    if picture is None:
        st.info("Choose a picture: JPEG, PNG, TIFF, WebP, BMP, GIF or PPM.")
        return None
    with wide:
        note(picture.note)
    return picture


def choose_dataset() -> str | None:
    """The name of a dataset that can be opened, or None after saying why there is none."""
    text = _pictures_field()
    if text in sources.SENT:
        st.info("That is one picture; choose a dataset here.")
        return None
    try:
        note(f"{len(sources.dataset(text).ids)} images")
    except XaiError as error:
        refusal(error)
        return None
    return text


def _recall(key: str, start: Any) -> None:
    """A field holds what the address says where that is a link that was followed, else what it held on any page.

    bind= of streamlit would put the whole title of a model into the address, and nothing after a change of the page.
    """
    state, asked = st.session_state, st.query_params.get(key)
    state[key] = state.get(key, start) if asked is None or asked == state.get(f"{key} addressed") else asked


def _address(key: str) -> None:
    st.query_params[key] = st.session_state[f"{key} addressed"] = str(st.session_state[key])


def _pictures_field() -> str:
    offered = [*sources.offered(), *sources.SENT]
    _recall("data", offered[0])
    text = st.selectbox(
        "Pictures", list(dict.fromkeys([*offered, st.session_state.data])), key="data", on_change=moved, accept_new_options=True,
        help=DATA_HELP,
    )  # fmt: skip
    _address("data")
    return text


def _sent(kind: str) -> sources.Picture | None:
    """The picture that is sent now, else the one that the address names, which this server may still have."""
    if kind == sources.UPLOAD:
        file = st.file_uploader("Upload", key="file", on_change=_new, args=("file",), max_upload_size=sources.MAX_UPLOAD_MB)
    else:
        file = st.camera_input("Camera", key="shot", on_change=_new, args=("shot",))
    if file is not None:
        st.session_state.sent = sources.keep(file.name, file.getvalue())
    elif asked := st.query_params.get("picture"):
        st.session_state.sent = asked  # the address is ours, or a link that was followed
    digest = st.session_state.get("sent")
    if not digest:
        return None
    st.query_params["picture"] = digest
    return sources.kept(digest)


def _new(key: str) -> None:
    """A picture was sent, or taken back."""
    moved()
    if st.session_state[key] is None:
        st.session_state.sent = None
        st.query_params.pop("picture", None)


def _sampled(text: str) -> sources.Picture:
    last = len(sources.dataset(text).ids) - 1
    _recall("item", 0)
    asked = str(st.session_state.item)
    st.session_state.item = min(int(asked[:9]), last) if asked.isdecimal() and asked.isascii() else 0
    item = st.number_input(f"Item, 0 to {last}", 0, last, key="item", on_change=moved)
    _address("item")
    return sources.from_dataset(text, item)
