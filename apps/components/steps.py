"""How a detector came to its boxes: the boxes of each step on the picture, and what other thresholds would have kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cached
import streamlit as st
import torch
from cached import Loaded
from sources import Picture
from torch import Tensor

from xaitools.adapters.tracing import resuppressed
from xaitools.errors import XaiError
from xaitools.report.colours import class_colours, map_rgb
from xaitools.types import KEPT, SUPPRESSED, UNRANKED, Trace

from .picture import Box, picture
from .views import ink
from .words import counted, note, refusal

MOST = 300
"""Boxes that are drawn of one step, the strongest."""
NAMED = 6

HELP = "From the anchors or cells that the network looks at to the boxes that suppression leaves"


@dataclass(frozen=True)
class Step:
    """One step of the way: its rows, and what it says of them.  ``started`` draws where the candidates began."""

    name: str
    trace: Trace
    rows: Tensor
    words: str
    started: bool = False


def show_steps(loaded: Loaded, shot: Picture) -> None:
    """A step to choose, and sliders for the score and the overlap from which boxes are dropped."""
    if "detection-trace" not in cached.applicable(loaded):
        return
    if not st.toggle("How it came to its boxes", key="steps", bind="query-params", help=HELP):
        return
    try:
        trace = cached.trace(loaded, shot)
        first, second = st.columns(2)
        own, overlap = round(trace.score_threshold, 3), round(trace.nms, 2)
        score = first.slider("Score above", own, 0.95, own, 0.01, key="above", bind="query-params")
        nms = second.slider("Suppressed above an IoU of", 0.05, 0.95, overlap, 0.05, key="overlap", bind="query-params")
        changed = trace if (score, nms) == (own, overlap) else resuppressed(trace, score, nms)
    except XaiError as error:
        refusal(error)
        return
    steps = {step.name: step for step in steps_of(changed)}
    name = st.segmented_control("Step", list(steps), default=list(steps)[-1], required=True, key="step", bind="query-params", wrap=True)
    step = steps[name]
    rows = step.rows[step.trace.scores[step.rows].argsort(descending=True, stable=True)]
    boxes = [box_of(step, row, place < NAMED) for place, row in enumerate(rows[:MOST].tolist())]
    picture(
        shot.rgb, key="step picture", boxes=boxes[::-1], alt=f"{shot.sample.id}, {step.name}: {step.words}.",
        hint=f"{len(boxes)} of {len(rows)} boxes" if len(boxes) < len(rows) else counted(len(rows), "box", "boxes"),
    )  # fmt: skip
    before = int((trace.finals >= 0).sum())
    note(step.words, f"final boxes {int((changed.finals >= 0).sum())}, with the model's own thresholds {before}")


def steps_of(trace: Trace) -> Iterator[Step]:
    """The steps in the order of the network."""
    every, first = torch.arange(len(trace.labels)), trace.first
    if first is not None:
        places = torch.arange(len(first.labels))
        yield Step(f"{first.kind}s", first, places, f"{counted(first.candidates.unique().numel(), first.kind)}, red by their score", True)
        kept = torch.where(first.finals >= 0)[0]
        yield Step("proposals", first, kept, f"{counted(len(kept), 'proposal')}; {_removed(first)}")
    else:
        yield Step(f"{trace.kind}s", trace, every, f"{counted(trace.candidates.unique().numel(), trace.kind)}, red by their score", True)
    above = torch.where((trace.scores > trace.score_threshold) & (trace.fates != UNRANKED))[0]
    yield Step("class boxes", trace, above, f"{counted(len(above), 'box', 'boxes')} with a score above {trace.score_threshold:g}")
    yield Step("suppressed", trace, torch.where(trace.fates == SUPPRESSED)[0], _removed(trace))
    final = torch.where(trace.fates == KEPT)[0]
    yield Step("final boxes", trace, final, counted(len(final), "final box", "final boxes"))


def _removed(trace: Trace) -> str:
    return f"{int((trace.fates == SUPPRESSED).sum())} suppressed at an IoU above {trace.nms:g}"


def box_of(step: Step, row: int, named: bool) -> Box:
    """A box of a class in its colour; of what has no class yet, red by its score."""
    trace, label, score = step.trace, int(step.trace.labels[row]), float(step.trace.scores[row])
    place = trace.priors[row] if step.started and trace.priors is not None else trace.boxes[row]
    title = f"{trace.classes[label]} {score:.2f}"
    if int(trace.winners[row]) >= 0:
        winner = int(trace.winners[row])
        title += f", IoU {float(trace.overlaps[row]):.2f} with {trace.classes[int(trace.labels[winner])]} {float(trace.scores[winner]):.2f}"
    red, green, blue = map_rgb(torch.tensor([[score]]), 1.0)[0, 0].tolist()
    colour = f"#{red:02x}{green:02x}{blue:02x}" if step.started or trace.classes == ("object",) else class_colours([label])[label]
    return Box(tuple(place.tolist()), title, title if named and not step.started else "", colour, ink(colour), int(trace.finals[row]) >= 0)
