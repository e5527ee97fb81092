"""What a probe and an audit are asked for: a model, a dataset, and the button that starts it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import jobs
import sources
import streamlit as st

from xaitools import zoo
from xaitools.audit.plan import code_version
from xaitools.errors import XaiError

from .fields import put
from .words import note, refusal

ANSWERS, RESULTS = "Ask", "Runs"
SHOWN_BY = {"probe": "show", "audit": "audit"}
"""Key of the field of each page that says which part of it is shown."""

DATA_HELP = "A dataset that is here, or typed: LAYOUT:FOLDER#SPLIT of a folder in the data folder, or drawn scenes such as scenes:test?n=50"
state = st.session_state


def choose_dataset() -> tuple[str, int] | None:
    """A dataset and how many items it has, or None after saying why there is none."""
    offered = sources.offered()
    typed = st.query_params.get("on", offered[0])
    text = st.selectbox(
        "Dataset", list(dict.fromkeys([*offered, typed])), key="on", bind="query-params", accept_new_options=True, help=DATA_HELP
    )
    try:
        return text, len(sources.dataset(text).ids)
    except XaiError as error:
        refusal(error)
        return None


def choose_model_and_dataset() -> tuple[str, str, int] | None:
    """A model, a dataset and how many items that has, or None after saying why there is none."""
    model = st.selectbox("Model", zoo.names(), key="of", bind="query-params")
    data = choose_dataset()
    return None if data is None else (model, *data)


def start(kind: str, models: Sequence[str], dataset: str, options: Sequence[str], label: str) -> None:
    """A button that starts the job, and the command that does the same."""
    st.button(label, type="primary", on_click=_asked, args=(kind, models, dataset, options), disabled=not models)
    note("It runs in a process of its own: leave the page, close the tab, start the server again, nothing is lost.")
    try:
        located = sources.located(dataset)
    except XaiError:
        return
    st.code(shlex.join(["xaitools", *jobs.words(kind, models, located, options, kind)]), language="bash", wrap_lines=True)


def _asked(kind: str, models: Sequence[str], dataset: str, options: Sequence[str]) -> None:
    version = "/".join([code_version(), *(zoo.card(name)["weights"]["sha256"] for name in models)])
    try:
        state.awaited = jobs.ask(kind, models, dataset, options, version)
    except OSError as error:
        st.toast(f"The runs folder cannot be written ({error.strerror}); make room, or start the dashboard with another --runs.")
        return
    put(SHOWN_BY[kind], RESULTS)
