"""Jobs and runs on the page: how far they are, what can be done with them, and which one is looked at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jobs
import results
import sources
import streamlit as st

from xaitools import zoo
from xaitools.audit.plan import code_version
from xaitools.errors import XaiError

from .words import note, plain, refusal

ANSWERS, RESULTS = "Ask", "Runs"
SHOWN_BY = {"probe": "show", "audit": "audit"}
"""Key of the field of each page that says which part of it is shown."""

SECONDS = 1.0
"""Between two looks at jobs that are not done."""

SHOWN = 8
"""Jobs that are not done, or were stopped, which are listed."""

DATA_HELP = "A dataset that is here, or typed: LAYOUT:FOLDER#SPLIT of a folder in the data folder, or drawn scenes such as scenes:test?n=50"
state = st.session_state


def pick(label: str, options: Mapping[str, str], key: str) -> str:
    """One of ``options``, value to title; the value stands in the address, where ``bind`` would put the title."""
    asked = st.query_params.get(key)
    if state.get(key) not in options:
        state[key] = asked if asked in options else next(iter(options))
    value = st.selectbox(label, list(options), key=key, format_func=lambda each: options[each], persist_state="session")
    st.query_params[key] = value
    return value


def put(key: str, value: Any) -> None:
    """From here on the field ``key`` has this value."""
    state[key] = value
    state.setdefault("put", set()).add(key)


def default(key: str, value: Any, otherwise: Any = None) -> Any:
    """What a field starts with; ``otherwise`` where ``put`` has just said what it is, which streamlit takes for a contradiction."""
    if key in state.get("put", ()):
        state.put.discard(key)
        return otherwise
    return value


def at_most(key: str, most: int) -> None:
    """The number of a field that another choice has made too large becomes the largest."""
    if state.get(key, 0) > most:
        put(key, most)


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
    state.awaited = jobs.ask(kind, models, dataset, options, version)
    put(SHOWN_BY[kind], RESULTS)


def show_jobs(kind: str) -> None:
    """Jobs that are not done, kept up to date while one of them moves."""
    jobs.advance()
    moving = any(each.state in (jobs.RUNNING, jobs.WAITING) for each in jobs.jobs(kind))
    st.fragment(_show_jobs, run_every=SECONDS if moving else None)(kind)


def _show_jobs(kind: str) -> None:
    jobs.advance()  # where a process was killed, nobody else would start the next
    every = jobs.jobs(kind)
    moving = {each.id for each in every if each.state in (jobs.RUNNING, jobs.WAITING)}
    before, state[f"{kind} moving"] = state.get(f"{kind} moving", moving), moving
    if before - moving:  # its result is to be shown, and nobody needs to look every second any more
        st.rerun()
    for each in [each for each in every if each.state != jobs.ENDED][:SHOWN]:
        _card(each)


def _card(each: jobs.Job) -> None:
    with st.container(border=True, key=f"job {each.id}"):
        words, buttons = st.columns([4, 1], vertical_alignment="center")
        with words:
            st.markdown(f"**{plain(', '.join(each.models))}** on {plain(each.dataset)}")
            note(f"asked {_when(each.asked)}", " ".join(each.options), each.id)
            if each.state == jobs.RUNNING:
                st.progress(min(1.0, each.done / each.total) if each.total else 0.0, _far(each))
            elif each.state == jobs.FAILED:
                refusal(f"failed: {each.line}")
            else:
                note({jobs.WAITING: f"waits: {jobs.AT_ONCE} at a time"}.get(each.state, f"{each.state}; what was done stays"))
        with buttons:
            if each.state in jobs.STOPPED:
                st.button("Go on", key=f"go on {each.id}", on_click=jobs.go_on, args=(each.id,), width="stretch")
            else:
                st.button("Cancel", key=f"cancel {each.id}", on_click=jobs.cancel, args=(each.id,), width="stretch")


def _far(each: jobs.Job) -> str:
    if not each.total:
        return "starting"
    rate = "" if each.rate is None else f", {each.rate:.2g} a second"
    return f"{each.done} of {each.total} steps{rate}{'' if each.to_go is None else f', about {_spoken(each.to_go)} to go'}"


def _spoken(seconds: float) -> str:
    """
    >>> _spoken(5), _spoken(200), _spoken(7300)
    ('5 s', '3 min', '2.0 h')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")


def choose_run(kind: str) -> results.Run | None:
    """One of the runs that ended, or None after saying that there is none."""
    found = {run.name: run for run in results.runs(kind)}
    if not found:
        st.info(f"No {kind} has ended yet. Start one under {ANSWERS}, or put the folder of one into the runs folder.")
        return None
    key = f"{kind}_run"
    if state.get("awaited") in found:
        state[key] = state.pop("awaited")
    return found[pick("Run", {name: run.title for name, run in found.items()}, key)]


def dataset_of(run: results.Run) -> str:
    """The dataset of a run as this page reads it: of a job as it was asked, else as the report calls it."""
    return jobs.job(run.name).dataset if jobs.ID.fullmatch(run.name) else run.dataset
