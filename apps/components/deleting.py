"""What is left of a decision while the pixels that a map calls strongest are deleted."""

from __future__ import annotations

from collections.abc import Sequence

import cached
import numpy as np
import streamlit as st
import torch
from cached import Question

from xaitools.errors import XaiError
from xaitools.metrics.maps import area_under
from xaitools.types import Attribution, Refusal

from . import charts
from .views import show_prediction
from .words import note, refusal

HELP = "The strongest pixels of the map are replaced by a blurred picture, and the model looks again"


def show_deletion(questions: Sequence[Question], results: Sequence[Attribution | Refusal]) -> None:
    """A slider through the share that is deleted, the prediction on what is left, and the score all along."""
    known = {each.method: each for each, result in zip(questions, results, strict=True) if isinstance(result, Attribution)}
    if not known or not st.toggle("Delete the strongest pixels", key="delete", bind="query-params", help=HELP):
        return
    first, second = st.columns([3, 4])
    method = first.selectbox("of the map", list(known), key="deleted", bind="query-params")
    share = second.slider("Pixels deleted", 0, 100, 10, 2, key="share", bind="query-params", format="%d %%")
    question = known[method]
    try:
        with st.spinner("The model looks at what is left ..."):
            curve = cached.deletion(question)
        if curve is None:
            note("The map is zero everywhere; there is nothing to delete first.")
            return
        shot = cached.deleted(question, share / 100)
        left, right = st.columns(2, gap="medium")
        with left:
            show_prediction(shot, cached.predict(question.loaded, shot), key="rest")
        with right:
            draw(curve, share)
    except XaiError as error:
        refusal(error)


def draw(curve: cached.Deletion, share: int) -> None:
    steps = np.linspace(0, 100, len(curve.ordered))
    lines = {"by the map": curve.ordered, "in random order": curve.random}
    words = "; ".join(f"{name}: {', '.join(f'{score:.2f}' for score in scores)}" for name, scores in lines.items())
    st.vega_lite_chart(spec=charts.curves(lines, share), width="stretch", alt=f"Score at equal steps from nothing deleted to all. {words}.")
    now, chance = (float(np.interp(share, steps, each)) for each in (curve.ordered, curve.random))
    areas = [area_under(torch.tensor(each)) for each in (curve.ordered, curve.random)]
    note(
        f"score {curve.ordered[0]:.3f}, with {share} % deleted {now:.3f}, in random order {chance:.3f}",
        f"mean over all shares {areas[0]:.3f}, in random order {areas[1]:.3f}; lower is better",
        "one picture and one random order; xaitools assess judges a method on many",
    )
