"""Scenes drawn by hand: a control for each factor, and what the model makes of the change."""

from __future__ import annotations

from functools import lru_cache

import cached
import looking
import sources
import streamlit as st
from cached import Loaded
from factors import FACTORS, told

from xaitools.data.scenes import Scenes
from xaitools.errors import XaiError

from .views import show_prediction
from .words import note, refusal

AS_DRAWN = "as drawn"
NAMES = {"cooccurrence": "companion", "texture": "texture of all objects", "pose": "pose of all objects"}
SEEDS = 2**32 - 1


def draw_scenes(loaded: Loaded) -> None:
    """The controls, the scene as it is drawn by its numbers, and beside it the scene with the chosen factors."""
    left, right = st.columns([3, 7], gap="medium")
    with left:
        first, second = st.columns(2)
        seed = first.number_input("Seed", 0, SEEDS, 0, key="seed", bind="query-params", help="Another seed draws other scenes")
        index = second.number_input("Scene", 0, 9999, 0, key="scene", bind="query-params")
        chosen = {name: _control(name, values) for name, values in FACTORS.items()}
    factors = tuple((name, FACTORS[name].index(value)) for name, value in chosen.items() if value != AS_DRAWN)
    crop = 64 if loaded.model.task == "classification" else None
    with right:
        places = st.columns(2, gap="medium")
        for place, title, changes in zip(places, (AS_DRAWN, "as chosen"), ((), factors), strict=True):
            with place:
                st.markdown(f"**{title}**")
                shot = scene(int(seed), int(index), changes, crop)
                _show(loaded, shot, key=f"scene {title}")


def _control(name: str, values: tuple[str, ...]) -> str:
    return st.select_slider(NAMES.get(name, name).capitalize(), (AS_DRAWN, *values), key=f"draw_{name}", bind="query-params")


@lru_cache(maxsize=32)
def scene(seed: int, index: int, factors: tuple[tuple[str, int], ...], crop: int | None) -> sources.Picture:
    """The scene ``index`` of scenes:test with that seed, with ``factors`` set and all else as it was."""
    scenes = Scenes("test", n=index + 1, seed=seed, crop=crop)
    sample = scenes.redraw(index, **dict(factors))
    return sources.made(sample, (scenes.name, "--item", sample.id), told(sample.tags), scenes.semantic_classes)


def _show(loaded: Loaded, shot: sources.Picture, key: str) -> None:
    try:
        prediction = cached.predict(loaded, shot)
    except XaiError as error:
        refusal(error)
        return
    show_prediction(shot, prediction, key=key)
    note(f"found: {looking.said(prediction, 0.5)}", looking.right(loaded, "scenes:test", shot.sample, prediction))
    note(shot.note)
