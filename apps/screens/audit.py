"""Audit: does the model decide for the wrong reason?  Ask for it, and read what was found with its evidence."""

from __future__ import annotations

from typing import Any

import results
import streamlit as st
from components import charts
from components.asking import ANSWERS, RESULTS, choose_model_and_dataset, start
from components.clusters import show_cluster, show_transplant
from components.fields import at_most, default
from components.findings import show_counterfactual, show_findings
from components.run_list import show_clean, show_run, show_warnings
from components.words import note

from xaitools.probes import CUES

PARTS = ("Findings", "Clusters", "Transplant", "Without one another", "Drops")
CARD = "model-card.md"


def page() -> None:
    st.markdown("#### Audit: does the model decide for the wrong reason?")
    shown = st.segmented_control(
        "Show", [ANSWERS, RESULTS], default=default("audit", ANSWERS), required=True, key="audit", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    {ANSWERS: ask, RESULTS: look}[shown]()


def ask() -> None:
    first, second = st.columns(2, gap="medium")
    with first:
        chosen = choose_model_and_dataset()
    if chosen is None:
        return
    model, dataset, count = chosen
    at_most("n", count)
    at_most("explained", count)
    with second:
        limit = st.number_input(f"Images, of {count}", 1, count, default("n", min(100, count), "min"), key="n", bind="query-params")
        explained = st.number_input("Of these, decisions are explained of", 1, count, default("explained", min(80, count), "min"),
                                    key="explained", bind="query-params")  # fmt: skip
    first, second, third = st.columns([2, 2, 1], vertical_alignment="bottom")
    allow = first.multiselect("Legitimate here", list(CUES), key="allow", bind="query-params", select_all=False,
                              help="A cue that makes the class, e.g. texture; what is found stays, marked.")  # fmt: skip
    robust = second.toggle("Attacks and distortions too", key="robust", bind="query-params", help="They get drops and no verdict.")
    seed = third.number_input("Seed", 0, 2**31 - 1, 0, key="seeded", bind="query-params")
    options = ["--limit", str(limit), "--explained", str(explained), *([] if robust else ["--no-robustness"])]
    options += [*(["--allow", ",".join(allow)] if allow else []), *(["--seed", str(seed)] if seed else [])]
    start("audit", [model], dataset, options, "Start the audit")


def look() -> None:
    show_run("audit", show_result, (results.PAGE, results.REPORT, CARD))


def show_result(run: results.Run, reports: dict[str, Any]) -> None:
    report = next(iter(reports.values()))
    show_clean(report)
    show_warnings(report["warnings"])
    part = st.segmented_control(
        "Part", PARTS, default=PARTS[0], required=True, key="part", bind="query-params", label_visibility="collapsed"
    )
    if part == "Findings":
        show_findings(report)
    elif part == "Clusters":
        show_cluster(run, report)
    elif part == "Transplant":
        show_transplant(run, report)
    elif part == "Drops":
        rows = charts.drop_rows({report["model"]: report})
        st.vega_lite_chart(rows, charts.drops(rows, report["metric"]), width="stretch", alt=charts.drops_in_words(rows))
    else:
        show_counterfactual(report["counterfactual"])
    note(f"{results.PAGE} is one page that loads nothing and holds all figures")


page()
