"""The findings of an audit: a card for each cue family, and how often such audits are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from xaitools.report.counterfactual import FEW, rows_of
from xaitools.report.findings import LOOKS, READING, errors_text, undecided_why
from xaitools.report.parts import interval, points, points_interval, value

from .tables import show_table
from .words import note, plain

Facts = Mapping[str, Any]
COLOURS = {"relies": "orange", "undecided": "gray", "no evidence": "blue"}


def show_findings(report: Facts) -> None:
    order = sorted(report["findings"], key=lambda row: list(LOOKS).index(row["verdict"]))
    for row in order:
        _card(row)
    note(READING)
    if "error_rates" in report:
        note(errors_text(report["error_rates"]))


def _card(row: Facts) -> None:
    with st.container(border=True):
        first, second, third = st.columns([2, 5, 6], vertical_alignment="center")
        with first:
            st.badge(row["verdict"], color=COLOURS[row["verdict"]])
        strength = "" if row["strength"] is None else f": **{plain(points(row['strength']))} points** {plain(points_interval(row['ci']))}"
        allowed = ", declared legitimate" if row["declared"] else ""
        second.markdown(f"**{plain(row['shortcut'])}**{allowed}{strength}")
        with third:
            note(row["about"])
        if why := undecided_why(row):
            note(f"Undecided: {why}.")
        with st.expander("Evidence, and what would refute it", expanded=row["verdict"] == "relies"):
            show_table(["", "evidence", "measured", "95 % interval", "threshold", "n"], map(_evidence, row["evidence"]), {2, 3, 4, 5})
            note(f"Would refute it: {row['would_refute']}.")


def _evidence(each: Facts) -> list[str]:
    measured = "threshold" in each
    numbers = [value(each["value"]), interval(each["ci"]), f"{each['threshold']:g}", str(each["n"])] if measured else [""] * 4
    return [each["kind"], each["says"], *numbers]


def show_counterfactual(found: Facts) -> None:
    """What each class loses without each other one."""
    if not found["rows"]:
        note(f"Not measured: {found['note']}." if found["note"] else "No two classes are seen together.")
        return
    heads, cells = rows_of(found)
    st.markdown(
        f"How far the {plain(found['score'])} of what is right falls when all objects of another class are painted over: "
        f"{found['objects']} decisions in {found['n']} images. Control: the same shapes painted over where no object is."
    )
    show_table(heads, cells, set(range(2, len(heads))))
    note(f"* fewer than {FEW} images, which is weak")
