"""Clusters of decisions (SpRAy): their scatter, their members and mean map, and their place pasted elsewhere by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cached
import moving
import results
import sources
import streamlit as st
from components import charts, stills
from components.run_list import dataset_of

from xaitools import zoo
from xaitools.audit.decisions import Decided, Decisions
from xaitools.errors import DataError, XaiError
from xaitools.report.parts import interval, p_value, points, points_interval, value
from xaitools.report.spray import FLIPS, LACKS, MOVED

from .tables import show_table
from .words import note, plain, refusal

Facts = Mapping[str, Any]
MEMBERS, ROW = 12, 6
"""Members that are shown, and in a row."""


def choose_cluster(report: Facts) -> tuple[str, Facts, int] | None:
    """A class, what is known of its clusters, and the number of one; None after saying why there is none."""
    classes = [name for name, facts in report["spray"].items() if facts["clusters"]]
    if not classes:
        note(report["decisions"]["note"] or "No class has enough decisions to be clustered.")
        return None
    suspicious = [name for name in classes if any(each["suspicious"] for each in report["spray"][name]["clusters"])]
    order = [*suspicious, *(name for name in classes if name not in suspicious)]
    first, second = st.columns([1, 2])
    name = first.selectbox("Class", order, key="class", bind="query-params", help="Those with a suspicious cluster come first.")
    clusters = report["spray"][name]["clusters"]
    options = [str(number + 1) for number in range(len(clusters))]
    chosen = second.segmented_control("Cluster", options, default="1", required=True, key="cluster", bind="query-params",
                                      help=" · ".join(charts.cluster_names(clusters)))  # fmt: skip
    return name, report["spray"][name], options.index(chosen) if chosen in options else 0


def _scatter(name: str, facts: Facts) -> list[tuple[str, str]]:
    """The decisions (item, target) that are chosen in the picture; none: all of the cluster."""
    rows, titles = charts.scatter_rows(facts), charts.cluster_names(facts["clusters"])
    event = st.vega_lite_chart(
        rows, charts.scatter(titles, facts["view"]), key=f"scatter {name}", on_select="rerun", width="stretch",
        alt=f"{len(rows)} decisions for {name} in two dimensions, in {len(titles)} clusters: {'; '.join(titles)}",
    )  # fmt: skip
    note("Click a point (with shift several), or drag over some; a click beside them chooses the cluster again.")
    points, area = event.selection.get("chosen") or [], event.selection.get("area") or {}
    if points:
        return [(each["id"], each["target"]) for each in points]
    if {"x", "y"} <= area.keys():
        (left, right), (low, high) = area["x"], area["y"]
        return [(row["id"], row["target"]) for row in rows if left <= row["x"] <= right and low <= row["y"] <= high]
    return []


def show_cluster(run: results.Run, report: Facts) -> None:
    """The scatter, what a cluster shares, and its members."""
    found = choose_cluster(report)
    if found is None:
        return
    name, facts, number = found
    cluster = facts["clusters"][number]
    left, *right = st.columns([4, 2, 2])
    with left:
        picked = _scatter(name, facts)
    for column, view, title in zip(right, ("place", "object"), ("in the image", "about the object"), strict=True):
        with column:
            st.image(moving.mean_map(cluster["maps"][view]), width="stretch", caption=f"mean map of cluster {number + 1}, {title}",
                     alt=f"Mean relevance of {cluster['size']} decisions for {name}, {title}")  # fmt: skip
    keys = picked or list(zip(cluster["members"], cluster["targets"], strict=True))
    st.markdown(f"**{len(keys)} decision{'s' * (len(keys) > 1)}** chosen in the picture" if picked else _said(name, cluster))
    got = recalled(run, report)
    if got is None:
        return
    loaded, dataset, decisions = got
    shown = moving.members(loaded, dataset, decisions, keys, cluster, MEMBERS)
    there = ", the place that the cluster shares in orange" if cluster["suspicious"] else ""
    note(f"The surest {len(shown)} of {len(keys)}, one an image: the object in white{there}")
    places = {id: place for place, id in enumerate(sources.dataset(dataset).ids)}
    for start in range(0, len(shown), ROW):
        for column, (member, still) in zip(st.columns(ROW), shown[start : start + ROW], strict=False):
            with column:
                st.image(still.png, width="stretch", caption=plain(member.item), alt=still.words)
                target = next(target for item, target in keys if item == member.item)
                at = {"model": loaded.name, "data": dataset, "item": str(places[member.item]), "target": target}
                st.page_link("screens/inspect.py", label="Inspect", query_params=at)


def _said(name: str, cluster: Facts) -> str:
    gathers = cluster["gathers"]
    verdict = "suspicious" if cluster["suspicious"] else f"not suspicious: {', '.join(LACKS[lack] for lack in cluster['lacks'])}"
    others = "" if gathers["others"] is None else f", that of others {points(gathers['others'])} %"
    spread = "" if gathers["ci"] is None else f", difference {points(gathers['difference'])} {points_interval(gathers['ci'])} points"
    there = f"{points(gathers['mass'])} % of their relevance lies where it gathers most{others}{spread}, "
    there += f"by chance {points(gathers['chance'])} %"
    return f"**{cluster['size']} decisions for {plain(name)}, {verdict}**: {plain(there)}"


def recalled(run: results.Run, report: Facts) -> tuple[cached.Loaded, str, Decisions] | None:
    """The run's model, dataset and decisions, or None after saying what is missing."""
    (model, folder), dataset = run.reports[0], dataset_of(run)
    try:
        if model not in zoo.names():
            raise DataError(f"{model} is no model of the zoo here: its images cannot be asked about")
        loaded, told = cached.load(model), report["decisions"]
        decisions = moving.decisions(loaded, dataset, folder, run.changed, report["seed"], told["method"], told["note"])
        if not decisions.made:
            raise DataError(f"{dataset} has none of the images of this run, or its records are gone: members are not shown")
        return loaded, dataset, decisions
    except XaiError as error:
        refusal(error)
        return None


def show_transplant(run: results.Run, report: Facts) -> None:
    """What a cluster shares, pasted by hand into an image of another class; and what came of it over all images."""
    found = choose_cluster(report)
    if found is None:
        return
    name, cluster = found[0], found[1]["clusters"][found[2]]
    _measured(report, name, cluster)
    got = recalled(run, report)
    if got is None:
        return
    loaded, dataset, decisions = got
    keys = set(zip(cluster["members"], cluster["targets"], strict=True))
    donors = list({each.item: each for each in decisions.made if each.key in keys}.values())
    hosts = moving.without_class(decisions, name)
    if not donors or not hosts:
        note(f"Every image here is of {name}, or none: there is nowhere to paste to.")
        return
    first, second = st.columns(2)
    donor = _one_of("Cut from", donors, "donor", first)
    host = _one_of("Paste into", hosts, "host", second)
    xyxy = _place(name, cluster)
    if not (xyxy[0] < xyxy[2] and xyxy[1] < xyxy[3]):
        note("The place is empty: its left end must lie left of its right end, its top above its bottom.")
        return
    _show_moved(loaded, dataset, name, donor, host, cluster["gathers"]["view"], xyxy)


def _one_of(label: str, some: Sequence[Decided], key: str, column: Any) -> Decided:
    by_name = {each.item: each for each in some}
    return by_name[column.selectbox(label, list(by_name), key=key, bind="query-params")]


def _place(name: str, cluster: Facts) -> list[float]:
    """Where, in shares of the view; the cluster's own place to begin with."""
    own = cluster["gathers"]["xyxy"]
    words = "of the image" if cluster["gathers"]["view"] == "place" else "of the object and its surroundings"
    with st.popover(f"The place, in % {words}"):
        return [
            column.number_input(side, 0.0, 100.0, round(100 * value, 1), 1.0, key=f"place {name} {cluster['size']} {side}") / 100
            for column, side, value in zip(st.columns(4), ("left", "top", "right", "bottom"), own, strict=True)
        ]


def _show_moved(loaded: cached.Loaded, dataset: str, name: str, donor: Decided, host: Decided, view: str, xyxy: Sequence[float]) -> None:
    data = sources.dataset(dataset)
    places = {id: place for place, id in enumerate(data.ids)}
    one, two = places[donor.item], places[host.item]
    boxes = [moving.place(each, view, xyxy, data[at].image.shape[-2:]) for each, at in ((donor, one), (host, two))]
    if boxes[0] is None or boxes[1] is None:
        note("There the place lies outside the image; choose another image or place.")
        return
    found = moving.moved(loaded, dataset, name, one, two, boxes[0], boxes[1])
    for column, still, title in zip(st.columns(3), (found.donor, found.before, found.after), ("Cut from", "Before", "After"), strict=True):
        with column:
            stills.show(still, title)
    said = (
        f"{name} appears"
        if found.appears and not found.was
        else f"{name} is there before and after"
        if found.appears
        else f"no {name} appears"
    )
    st.markdown(f"**{plain(said)}** in {plain(host.item)}. One image shows what may happen; the shares above say how often.")


def _measured(report: Facts, name: str, cluster: Facts) -> None:
    """What the audit itself measured of moving this cluster's place."""
    suspicious = [each for each in report["spray"][name]["clusters"] if each["suspicious"]]
    if cluster not in suspicious:
        note("The audit moved only what suspicious clusters share; this one is not.")
        return
    facts = report["transplants"][name][suspicious.index(cluster)]
    rows = [
        [words, f"{value(facts[key]['value'])} {interval(facts[key]['ci'])}",
         f"{value(facts[key]['control']['value'])} {interval(facts[key]['control']['ci'])}", p_value(facts[key]["p"]), str(facts[key]["n"])]
        for key, words in MOVED.items()
    ]  # fmt: skip
    show_table(["what was done, 95 % intervals", "share of images", "control", "p", "n"], rows, {1, 2, 3, 4})
    note(FLIPS[facts["flips"]].replace("<b>", "").replace("</b>", ""), facts["criterion"])
