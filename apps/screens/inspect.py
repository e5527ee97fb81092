"""Inspect: why did the model decide so?  Choose a model and a picture, point at something, compare methods."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial

import cached
import pointing
import sources
import streamlit as st
from cached import Question
from components.aiming import choose_target, point_at, shown
from components.choices import choose_model, choose_picture
from components.deleting import show_deletion
from components.steps import show_steps
from components.views import answer, show_made, show_map, show_prediction
from components.words import plain, refusal

from xaitools.attribution.base import METHODS
from xaitools.errors import TargetError, XaiError
from xaitools.report.colours import limit_of
from xaitools.targets import Target
from xaitools.types import Attribution, Explanation, Prediction, Refusal

FAVOURITES = ("lrp", "saliency", "gradient-x-input")
BLEND_HELP = "0 is the picture; 50 lets it through where the map is weak; 100 is the map in the colours of its bar"
WEAK_HELP = "Of the limit where the colours end; the numbers stay those of the whole map"
SCALE_HELP = "each: every map at its own limit; shared: all maps at the largest one"


def page() -> None:
    st.markdown("#### Inspect: why did the model decide so?")
    first, second = st.columns(2, gap="medium")
    with first:
        loaded = choose_model()
    with second:
        shot = choose_picture()
    if loaded is None or shot is None:
        return
    try:
        prediction = cached.predict(loaded, shot)
    except XaiError as error:
        refusal(error)
        return
    left, right = st.columns([5, 7], gap="medium")
    with left:
        target = look(shot, prediction)
        show_steps(loaded, shot)
    with right:
        if isinstance(target, TargetError):
            refusal(target)
        else:
            explain(loaded, shot, prediction, target)


def look(shot: sources.Picture, prediction: Prediction) -> Target | TargetError:
    """The prediction on the picture, and what of it is to be explained."""
    place, strength = st.container(), 0
    if prediction.semantic is not None:
        strength = st.slider("Prediction over the picture", 0, 100, 45, 5, key="tint", format="%d %%", bind="query-params")
    elif prediction.boxes is not None:
        st.slider("Boxes with a score of at least", 0.05, 0.95, 0.5, 0.05, key="least", bind="query-params")
    target = choose_target(shot, prediction)
    known, on_pick = None if isinstance(target, TargetError) else target, partial(point_at, prediction)
    with place:
        show_prediction(shot, prediction, known, count=shown(prediction), strength=strength / 100, on_pick=on_pick)
    return target


def explain(loaded: cached.Loaded, shot: sources.Picture, prediction: Prediction, target: Target) -> None:
    st.markdown(f"**Why {plain(pointing.spoken(target, prediction))}?**")
    first, second = st.columns([3, 2])
    known = cached.applicable(loaded)
    start = [name for name in FAVOURITES if name in known][:2]
    methods = first.multiselect("Methods", known, start, key="method", bind="query-params", select_all=False)
    text = second.text_input("Settings", key="set", bind="query-params", placeholder="METHOD.NAME=VALUE", help=_settings_help(methods))
    first, second, third = st.columns([3, 3, 3])
    blend = first.slider("Picture – overlay – map", 0, 100, 50, 5, key="blend", bind="query-params", help=BLEND_HELP)
    least = second.slider("Hide weaker than", 0, 90, 0, 5, key="weak", bind="query-params", format="%d %%", help=WEAK_HELP)
    scale = third.segmented_control(
        "Colours end", ["each", "shared"], default="each", required=True, key="scale", bind="query-params", help=SCALE_HELP, wrap=True
    )
    try:
        settings = cached.settings(text)
    except XaiError as error:
        refusal(error)
        return
    questions = [Question(loaded, shot, str(target), name, settings.get(name, ())) for name in methods]
    results = show_maps(questions, prediction, blend / 100, least / 100, scale == "shared")
    show_deletion(questions, results)
    limits = [limit_of(each.values) for each in results if isinstance(each, Attribution)]
    if limits:
        explanation = Explanation(
            loaded.name, shot.sample.id, shot.sample.image, prediction, (str(target),), tuple(methods), tuple(results)
        )
        offer(explanation, questions, max(limits) if scale == "shared" else None)


def _settings_help(methods: Sequence[str]) -> str:
    known = [f"{name}.{key}={value}" for name in methods for key, value in METHODS[name].defaults.items()]
    return "Parameters of the chosen methods, with their defaults: " + (plain(", ".join(known)) or "none")


def show_maps(
    questions: Sequence[Question], prediction: Prediction, blend: float, least: float, shared: bool
) -> list[Attribution | Refusal]:
    """The maps side by side, each as soon as it is there; on one scale when all are."""
    on_pick = partial(point_at, prediction)
    slots = [slot for _ in questions[::2] for slot in st.columns(2)][: len(questions)]
    results = []
    for question, slot in zip(questions, slots, strict=True):
        with slot:
            st.markdown(f"**{plain(question.method)}**")
            results.append(result := answer(question, partial(show_rough, question.picture, prediction, blend)))
            if isinstance(result, Refusal):
                refusal(result.error)
            elif not shared:
                show_map(question.picture, prediction, result, limit_of(result.values), blend, on_pick, least=least)
    made = [(slot, result) for slot, result in zip(slots, results, strict=True) if isinstance(result, Attribution)]
    for slot, result in made if shared else []:
        with slot:
            limit = max(limit_of(each.values) for _, each in made)
            show_map(questions[0].picture, prediction, result, limit, blend, on_pick, least=least)
    for _, result in made:
        show_made(questions[0].picture, result)
    return results


def show_rough(shot: sources.Picture, prediction: Prediction, blend: float, result: Attribution) -> None:
    show_map(shot, prediction, result, limit_of(result.values), blend, key=f"coarse {result.params['window']}")


def offer(explanation: Explanation, questions: Sequence[Question], limit: float | None) -> None:
    """What can be taken away: the figure, the numbers, and the command that makes both again."""
    scale = "each" if limit is None else f"{limit:.6g}"
    make = partial(cached.files, explanation, scale)
    with st.container(horizontal=True):
        for form in ("pdf", "png", "svg"):
            download(f"Figure {form.upper()}", f"figure.{form}", partial(make, form))
        download("Tensors", "attributions.safetensors", make)
        download("Numbers", "explanation.json", make)
        download("Picture", "picture.png", partial(cached.png, questions[0].picture))
    source, *rest = questions[0].picture.source
    words = ["xaitools", "explain", source, *rest, "--model", questions[0].loaded.string, "--target", explanation.targets[0]]
    words += ["--method", ",".join(explanation.methods), *([] if limit is None else ["--scale", scale])]
    words += [word for each in questions for name, value in each.params for word in ("--set", f"{each.method}.{name}={value}")]
    st.code(shlex.join([*words, "--out", "explanation"]), language="bash", wrap_lines=True)


def download(label: str, name: str, make: Callable[[], dict[str, bytes]]) -> None:
    """A button that makes its file when it is pressed."""
    st.download_button(label, lambda: make()[name], name, on_click="ignore", key=f"download {name}")


page()
