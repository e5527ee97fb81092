"""Probe: what does each cue cost?  Ask for it, come back for the drops, and look at single images with one cue changed."""

from __future__ import annotations

from functools import partial
from typing import Any

import cached
import changing
import results
import sources
import streamlit as st
from changing import Change
from components import charts, stills
from components.asking import ANSWERS, RESULTS, choose_dataset, choose_model_and_dataset, start
from components.fields import at_most, default, put
from components.run_list import dataset_of, show_clean, show_run, show_warnings
from components.words import note, plain, refusal

from xaitools import zoo
from xaitools.errors import XaiError
from xaitools.probes import FAMILIES, PROBES

LIVE = "One image"
TWINS = ("unet-scenes", "unet-scenes-background")
FIRST = ("background", "texture", "domain", "adversarial")
state = st.session_state


def page() -> None:
    st.markdown("#### Probe: what does each cue cost?")
    shown = st.segmented_control(
        "Show",
        [ANSWERS, RESULTS, LIVE],
        default=default("show", ANSWERS),
        required=True,
        key="show",
        bind="query-params",
        label_visibility="collapsed",
    )
    {ANSWERS: ask, RESULTS: look, LIVE: live}[shown]()


def first_models() -> list[str]:
    """An honest model and its cheating twin, where they are there: the difference is the point."""
    return [name for name in TWINS if name in zoo.names()] or zoo.names()[:1]


def ask() -> None:
    first, second = st.columns(2, gap="medium")
    with first:
        models = st.multiselect("Models", zoo.names(), first_models(), key="models", bind="query-params", select_all=False, wrap=True)
        data = choose_dataset()
    with second:
        members = [name for name, entry in sorted(PROBES.items()) if entry.family in FAMILIES and not entry.elsewhere]
        offered = list(dict.fromkeys([*FAMILIES, *members]))
        probes = st.multiselect("Families or members", offered, list(FIRST), key="probes", bind="query-params", select_all=False, wrap=True,
                                help="A family stands for its default members; see the README for all.")  # fmt: skip
        severities = st.segmented_control(
            "Severities", [1, 2, 3, 4, 5], selection_mode="multi", default=[3], key="severities", bind="query-params"
        )
    if data is None:
        return
    dataset, count = data
    first, second, third = st.columns(3)
    at_most("n", count)
    limit = first.number_input(f"Images, of {count}", 1, count, default("n", min(100, count), "min"), key="n", bind="query-params")
    explained = second.number_input("Explained images", 0, 1000, 16, key="relevance", bind="query-params",
                                    help="On so many it is asked where relevance lies before and after each change.")  # fmt: skip
    seed = third.number_input("Seed", 0, 2**31 - 1, 0, key="seeded", bind="query-params")
    if not (models and probes and severities):
        note("Choose a model, a family and a severity.")
        return
    options = ["--probes", ",".join(probes), "--severities", ",".join(map(str, sorted(severities))), "--limit", str(limit)]
    options += ["--relevance", str(explained), *(["--seed", str(seed)] if seed else [])]
    start("probe", models, dataset, options, "Start the probe")


def look() -> None:
    show_run("probe", show_result, (results.PAGE, results.REPORT))


def show_result(run: results.Run, reports: dict[str, Any]) -> None:
    for report in reports.values():
        show_clean(report)
    rows = charts.drop_rows(reports)
    metrics = " or ".join(dict.fromkeys(report["metric"] for report in reports.values()))
    st.vega_lite_chart(rows, charts.drops(rows, metrics), key=f"drops {run.name}", on_select=chosen_in_chart(run.name),
                       alt=charts.drops_in_words(rows), width="stretch")  # fmt: skip
    show_warnings([f"{model}: {each}" for model, report in reports.items() for each in report["warnings"]])
    with st.expander("As numbers"):
        st.dataframe([{name: row[name] for name in ("model", "family", "probe", "value", "drop", "low", "high", "p", "n", "reading")}
                      for row in rows], hide_index=True)  # fmt: skip
    names = list(dict.fromkeys(name for report in reports.values() for name in report["probes"]))
    probe = st.selectbox("Worst cases of", names, key="probe", bind="query-params")
    for model, folder in run.reports:
        if probe in reports[model]["probes"]:
            show_cases(run, model, folder, probe, reports[model]["probes"][probe])


def chosen_in_chart(name: str) -> Any:
    def choose() -> None:
        points = state[f"drops {name}"].selection.get("chosen") or []
        if points:
            state.probe = points[0]["probe"]

    return choose


def show_cases(run: results.Run, model: str, folder: Any, probe: str, row: Any) -> None:
    """The report's own figure of a probe, and each of its images to look at closer."""
    st.markdown(f"**{plain(model)}**: {plain(row['about'])}")
    if figure := results.figure(folder, probe):
        st.image(figure, width="stretch", alt=f"{probe}: images before and after, with truth and prediction")
    else:
        note("There are no pictures of this probe in the run's folder.")
    dataset = dataset_of(run)
    try:
        places = {id: place for place, id in enumerate(sources.dataset(dataset).ids)}
    except XaiError:
        places = {}
    for case in row.get("examples", ()):
        if case["id"] not in places:
            continue
        words, live_button, link = st.columns([5, 2, 2], vertical_alignment="center")
        with words:
            note(f"{case['role']}: {case['id']}", f"{100 * case['drop']:.1f} points on this image alone")
        at = {"of": model, "on": dataset, "image": places[case["id"]], "change": case["images"], "degree": case["severity"]}
        live_button.button("Change it live", key=f"live {model} {probe} {case['id']}", on_click=partial(open_live, at), width="stretch")
        with link:
            inspect_link("Inspect it unchanged", model, dataset, item=str(places[case["id"]]))


def open_live(at: dict[str, Any]) -> None:
    for key, value in (at | {"show": LIVE}).items():
        put(key, value)


def inspect_link(label: str, model: str, data: str, **which: str) -> None:
    st.page_link("screens/inspect.py", label=label, query_params={"model": model, "data": data, **which}, width="stretch")


def live() -> None:
    first, second = st.columns(2, gap="medium")
    with first:
        chosen = choose_model_and_dataset()
    if chosen is None:
        return
    model, dataset, count = chosen
    loaded = cached.load(model)
    try:
        offered = changing.offered(loaded, dataset)
    except XaiError as error:
        refusal(error)
        return
    with second:
        at_most("image", count - 1)
        item = st.number_input(f"Image, 0 to {count - 1}", 0, count - 1, key="image", bind="query-params")
        name = st.selectbox("What is changed", list(offered), key="change", bind="query-params")
        entry = offered[name]
        most = 5 if entry.degrees else 1
        at_most("degree", most)
        severity = st.slider("Severity, 0 is unchanged", 0, most, default("degree", min(3, most)), key="degree", bind="query-params")
    note(entry.about)
    try:
        found = changing.changed(loaded, dataset, int(item), name, severity)
    except XaiError as error:
        refusal(error)
        return
    show_change(found, name, severity, entry.family == "adversarial")
    unchanged, changed = st.columns(2)
    with unchanged:
        inspect_link(f"Open {found.id} in Inspect, unchanged", model, dataset, item=str(item))
    if not found.largest:
        return
    with changed:
        digest = sources.keep_image(f"{found.id} {name} {severity}", found.image)
        inspect_link(f"Open {found.id} in Inspect, as changed by {name} {severity}", model, sources.UPLOAD, picture=digest)


def show_change(found: Change, name: str, severity: int, attacked: bool) -> None:
    panels = [(found.truth, "Truth"), (found.before, "Unchanged"), (found.after, f"{name}, severity {severity}")]
    if attacked and found.largest:
        panels.append((found.difference, f"The change, {found.gain:.3g} times"))
    for column, (still, title) in zip(st.columns(len(panels)), panels, strict=True):
        with column:
            stills.show(still, title)
    note(f"{found.id}: the largest change of a pixel is {found.largest:.1f} / 255", "one image shows what may happen, not how often")


page()
