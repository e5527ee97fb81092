"""Jobs and runs on the page: how far they are, what can be done with them, and which one is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jobs
import results
import streamlit as st

from xaitools.errors import XaiError
from xaitools.report.parts import interval, value

from .asking import ANSWERS
from .fields import pick
from .words import note, plain, refusal

SECONDS = 1.0
"""Between two looks at jobs that are not done."""

MOVING = (jobs.RUNNING, jobs.WAITING)
SHOWN = 8
"""Jobs that are not done, or were stopped, which are listed."""

state = st.session_state


def show_jobs(kind: str) -> None:
    """Jobs that are not done, kept up to date while one of them moves."""
    jobs.advance()
    moving = any(each.state in MOVING for each in jobs.jobs(kind))
    st.fragment(_show_jobs, run_every=SECONDS if moving else None)(kind, moving)


def _show_jobs(kind: str, watched: bool) -> None:
    jobs.advance()  # where a process was killed, nobody else would start the next
    every = jobs.jobs(kind)
    moving = {each.id for each in every if each.state in MOVING}
    before, state[f"{kind} moving"] = state.get(f"{kind} moving", moving), moving
    # a result is to be shown, or a job goes on that nobody looks after yet; else the page is left as it is, since
    # streamlit loses a click on one of these buttons that comes while the whole page is drawn anew
    if any(each.id in before and each.state == jobs.ENDED for each in every) or (moving and not watched):
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


def show_run(kind: str, show: Callable[[results.Run, dict[str, Any]], None], files: Sequence[str]) -> None:
    """Jobs of a command, and by ``show`` the run that is chosen, with its reports by model; ``files`` of each can be taken away."""
    show_jobs(kind)
    run = choose_run(kind)
    if run is None:
        return
    try:
        show(run, {model: results.report(folder) for model, folder in run.reports})
    except XaiError as error:
        refusal(error)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        refusal(f"{run.name}: no report written by this version of xaitools ({type(error).__name__}: {error}); {kind} again")
    with st.container(horizontal=True):
        for model, folder in run.reports:
            for name in files:
                st.download_button(f"{name} of {model}", partial(results.content_of, folder / name), name, on_click="ignore",
                                   key=f"file {model} {name}")  # fmt: skip


def dataset_of(run: results.Run) -> str:
    """The dataset of a run as this page reads it: of a job as it was asked, else as the report calls it."""
    return next((each.dataset for each in jobs.jobs() if each.id == run.name), run.dataset)


def show_clean(report: Mapping[str, Any]) -> None:
    """What the model is worth on unchanged images."""
    clean = report["clean"]
    worth = f"{report['metric']} {value(clean['value'])} {interval(clean['ci'])} on {report['n']} unchanged images of {report['dataset']}"
    st.markdown(f"**{plain(report['model'])}**: {plain(worth)}")


def show_warnings(warnings: Sequence[str]) -> None:
    if warnings:
        with st.expander(f"Before you conclude anything: {len(warnings)}"):
            st.markdown("\n".join(f"- {plain(each)}" for each in warnings))
