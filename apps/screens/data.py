"""Data: look through a dataset with what the model found in it, or draw scenes and see what it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import looking
import sources
import streamlit as st
from cached import Loaded
from components.choices import choose_dataset, choose_model
from components.drawing import draw_scenes
from components.gallery import Tile, gallery
from components.picture import COARSE
from components.words import note, refusal

from xaitools.errors import DataError
from xaitools.metrics.accuracy import BOXED
from xaitools.metrics.matching import SIZES
from xaitools.metrics.mistakes import ERRORS

VIEWS = ("Browse", "Draw scenes")
COUNTS = (12, 24, 48, 96)
ERROR_HELP = (
    "Missed: something annotated that was not found. Wrong class: something found on an object of another class. False alarm: something "
    "found where nothing is. Several choices mean any of them."
)
SIZE_HELP = "COCO's sizes: small up to 32 x 32 pixels, medium up to 96 x 96, large beyond"


def page() -> None:
    st.markdown("#### Data: what does the model see in it?")
    view = st.segmented_control(
        "View", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    if view == VIEWS[1]:
        loaded = choose_model()
        if loaded is not None:
            draw_scenes(loaded)
        return
    first, second = st.columns(2, gap="medium")
    with first:
        loaded = choose_model()
    with second:
        text = choose_dataset()
    if loaded is not None and text is not None:
        browse(loaded, text)


def browse(loaded: Loaded, text: str) -> None:
    boxed = loaded.model.task in BOXED
    left, middle, right = st.columns([3, 4, 3], vertical_alignment="bottom")
    count = left.segmented_control("Images at a time", COUNTS, default=COUNTS[0], required=True, key="count", bind="query-params")
    wrong = middle.pills("Only images with", ERRORS, selection_mode="multi", key="wrong", bind="query-params", help=ERROR_HELP)
    sized = right.pills("of size", list(SIZES), selection_mode="multi", key="size", bind="query-params", help=SIZE_HELP)
    score = st.slider("Boxes with a score of at least", 0.05, 0.95, 0.5, 0.05, key="least", bind="query-params") if boxed else 0.0
    total = len(sources.dataset(text).ids)
    place = st.pagination(-(-total // count), key="page", bind="query-params")
    items = range((place - 1) * count, min(place * count, total))
    looks = looked(loaded, text, items, score)
    relabel = looking.relabelling(text, loaded.model.task, loaded.model.classes)
    if isinstance(relabel, DataError):
        refusal(relabel)
    seen = [(item, each) for item, each in zip(items, looks, strict=True) if isinstance(each, looking.Look)]
    chosen = [(item, each) for item, each in seen if matches(each, wrong, sized)]
    filtered = f"{len(chosen)} of them with what is asked for" if wrong or sized else ""
    note(f"images {items[0]} to {items[-1]} of {total} looked at, n = {len(seen)}", filtered, "left what is annotated, right what is found")
    tiles = [tile(loaded, text, item, each) for item, each in chosen]
    if tiles:
        coarse = max(max(each.truth.shape) for _, each in chosen) < COARSE
        gallery(tiles, key="gallery", coarse=coarse, on_open=lambda item: st.session_state.update(opening=item))
        if (item := st.session_state.pop("opening", None)) is not None:
            st.session_state.update(target="", item=item)  # an item 0 in the address alone would not replace another
            # the dataset is bound to its field and comes along
            st.switch_page("screens/inspect.py", query_params={"model": loaded.name, "item": str(item)})
    else:
        st.info("No image here has what is asked for; take more images at a time, another page, or fewer conditions.")
    for item, each in zip(items, looks, strict=True):
        if isinstance(each, str):
            refusal(f"item {item}: {each}")
    show_confusion([each for _, each in seen], loaded, score)


def looked(loaded: Loaded, text: str, items: Sequence[int], score: float) -> list[looking.Look | str]:
    bar, found = st.empty(), []
    for done, item in enumerate(items, 1):
        found.append(looking.look(loaded, text, item, score))
        if done < len(items):
            bar.progress(done / len(items), f"{done} of {len(items)} images")
    bar.empty()
    return found


def matches(each: looking.Look, wrong: Sequence[str], sized: Sequence[str]) -> bool:
    """Whether something in the image is wrong in one of these ways and of one of these sizes; nothing chosen means any."""
    return not (wrong or sized) or any((event.what in wrong or not wrong) and (event.size in sized or not sized) for event in each.events)


def tile(loaded: Loaded, text: str, item: int, each: looking.Look) -> Tile:
    parts = []
    for what in ERRORS:
        count = Counter(event.name for event in each.events if event.what == what)
        if count:
            parts.append(f"{what} " + ", ".join(name if often == 1 else f"{often} {name}" for name, often in count.items()))
    pictures = [(each.truth, f"{each.id}, annotated"), (each.guess, f"{each.id}, found: {each.said}")]
    href = "./?" + urlencode({"model": loaded.name, "data": text, "item": item})
    return Tile(item, f"{item} · {each.id}", href, pictures, each.said, " · ".join(parts))


def show_confusion(looks: Sequence[looking.Look], loaded: Loaded, score: float) -> None:
    """What was taken for what in the images looked at, filters or not."""
    found = looking.confusion(looks, loaded.model.task, loaded.model.classes, score)
    if found is None:
        return
    table = found["table"]
    st.markdown(f"##### What was taken for what, n = {len(looks)} images")
    unit = found.get("counts", "boxes")
    parts = [f"a row is what is annotated, a column what is found; {'% of its pixels' if unit == 'pixels' else unit}"]
    if "precision" in found:
        parts += [f"{name} {_sure(found[name], found[f'{name}_ci'])}" for name in ("precision", "recall")]
        parts.append(f"boxes with a score of at least {score:g}, right from IoU {found['iou']:g} on")
    note(*parts)
    used = [place for place, name in enumerate(table["columns"]) if _met(table, place, name)]
    shares = unit == "pixels"
    rows = [
        {"annotated": name, **({unit: sum(counts)} if shares else {}),
         **{table["columns"][place]: round(100 * counts[place] / sum(counts), 1) if shares else counts[place] for place in used}}
        for name, counts in zip(table["rows"], table["counts"], strict=True) if any(counts)
    ]  # fmt: skip
    st.dataframe(rows, hide_index=True)


def _met(table: dict[str, Any], place: int, name: str) -> bool:
    """Whether the column, or the row of that name, has anything in it."""
    own = table["rows"].index(name) if name in table["rows"] else None
    return any(counts[place] for counts in table["counts"]) or (own is not None and any(table["counts"][own]))


def _sure(value: float | None, ci: Sequence[float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")


page()
