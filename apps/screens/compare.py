"""Compare: models by accuracy, cost and robustness, and two of them on the same picture."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cached
import pointing
import results
import sources
import streamlit as st
from cached import Loaded, Question
from components.charts import drop_rows
from components.choices import choose_picture, family_of
from components.views import answer, show_map, show_prediction
from components.words import counted, note, plain, refusal

from xaitools import zoo
from xaitools.errors import XaiError
from xaitools.files import plain as as_json
from xaitools.report.colours import limit_of
from xaitools.report.compare import compare_figure, figure_bytes
from xaitools.types import Refusal

MOST = 6  # models at one time; more are not kept in memory

FAVOURITES = ("lrp", "saliency", "occlusion-drise")
AXES = {"gflops": "operations of one image", "train_petaflop": "operations of training"}
Facts = Mapping[str, Any]


def page() -> None:
    st.markdown("#### Compare: what is accuracy bought with?")
    cards = {name: zoo.card(name) for name in zoo.names()}
    names = st.multiselect(
        "Models", list(cards), starting(cards), key="compared", bind="query-params", max_selections=MOST, select_all=False,
        help=f"At most {MOST} models of the zoo, with the scores of their cards; another dataset: xaitools compare --data",
    )  # fmt: skip
    if not names:
        st.info("Choose at least one model.")
        return
    place = st.container()
    models = tuple(cached.load(name) for name in names)
    with place, st.spinner("Operations, memory and time of one image are measured ..."):
        document = cached.compared(models)
    with place:
        show_numbers(document)
        show_robustness(names)
    show_pair(models)


def starting(cards: Mapping[str, Facts]) -> list[str]:
    """The two most accurate segmenters and detectors of those that were judged on the same drawn scenes."""
    chosen = []
    for task in ("segmentation", "detection"):
        of_task = [name for name, card in cards.items() if card["task"] == task and family_of(card) == "scenes"]
        data = Counter(cards[name]["data"]["test"] for name in of_task).most_common(1)
        same = [name for name in of_task if cards[name]["data"]["test"] == data[0][0]]
        chosen += sorted(same, key=lambda name: -cards[name]["scores"]["test"]["value"])[:2]
    return chosen


def show_numbers(document: Facts) -> None:
    """The table, the figure as ``xaitools compare`` draws it, and what can be taken away."""
    rows = [
        {"model": row["model"], "task": row["task"], "data": row["dataset"], "metric": row["metric"], "value": row["value"],
         "95 % interval": " to ".join(f"{end:.3f}" for end in row["ci"] or ()), "n": row["n"], "parameters": row["parameters"],
         "GFLOP": row["gflops"], "memory MB": row["memory_mb"], "latency ms": row["latency_ms"], "training PFLOP": row["train_petaflop"]}
        for row in document["rows"]
    ]  # fmt: skip
    formats = {"value": "%.3f", "GFLOP": "%.3g", "memory MB": "%.1f", "latency ms": "%.1f", "training PFLOP": "%.3g"}
    columns: Any = {name: st.column_config.NumberColumn(format=form) for name, form in formats.items()}
    st.dataframe(rows, hide_index=True, column_config=columns)
    told = document["measured"]
    note(
        f"a multiply-add is two operations; memory: {told['memory']}",
        f"latency: median of {told['rounds']} rounds in turn on {', '.join(told['device'])} with {counted(told['threads'], 'thread')}, "
        "beside all else that this server does",
        *document.get("warnings", ()),
    )  # fmt: skip
    able = [x for x in AXES if any(row["value"] is not None and row[x] for row in document["rows"])]
    if able:
        x = st.segmented_control("Against", able, default=able[0], required=True, key="axis", bind="query-params", format_func=AXES.get)
        words = [
            f"{row['model']} {row['metric']} {row['value']:.3f} at {row[x]:.3g}" for row in document["rows"] if row["value"] and row[x]
        ]
        st.image(_drawn(document, x, "png"), width="stretch", alt=f"Accuracy against {AXES[x]}: {'; '.join(words)}.")
        with st.container(horizontal=True):
            for form in ("pdf", "svg"):
                st.download_button(f"Figure {form.upper()}", partial(_drawn, document, x, form), f"compare.{form}", on_click="ignore")
            st.download_button("Numbers", lambda: json.dumps(as_json(document), indent=1), "compare.json", on_click="ignore")
    words = [word for row in document["rows"] for word in ("--model", row["model"])]
    st.code(shlex.join(["xaitools", "compare", *words, "--out", "compare"]), language="bash", wrap_lines=True)


def show_robustness(names: Sequence[str]) -> None:
    """Drops that a probe or an audit in the runs folder has measured; nothing where none has."""
    st.markdown("##### Robustness, where a run has measured it")
    rows = []
    for run in [*results.runs("probe"), *results.runs("audit")]:
        for model, folder in run.reports:
            if model in names:
                rows += [measured(run, each) for each in drop_rows({model: results.report(folder)})]
    if rows:
        rows.sort(key=lambda row: (row["data"], row["family"], row["probe"], names.index(row["model"])))
        st.dataframe(rows, hide_index=True)
        note("drops of the metric in points, positive is worse; compare rows of the same data and probe only")
    else:
        note("no run in the runs folder has measured these models; the page Probe starts one")


def measured(run: results.Run, row: Facts) -> dict[str, Any]:
    interval = "" if row["low"] is None else f"{row['low']:.1f} to {row['high']:.1f}"
    return {
        "data": run.dataset, "family": row["family"], "probe": row["probe"], "model": row["model"], "drop": row["drop"],
        "95 % interval": interval, "n": row["n"], "run": run.name,
    }  # fmt: skip


def _drawn(document: Facts, x: str, form: str) -> bytes:
    return figure_bytes(compare_figure(document, x), form, 150)


def show_pair(models: Sequence[Loaded]) -> None:
    """Two models on one picture, each with what it finds and one map of its best answer."""
    st.markdown("##### Two of them on the same picture")
    first, second, third = st.columns([3, 3, 6], gap="medium")
    names = {loaded.name: loaded for loaded in models}
    other = min(1, len(models) - 1)
    pair = [
        names[first.selectbox("Left", list(names), 0, key="left", bind="query-params")],
        names[second.selectbox("Right", list(names), other, key="right", bind="query-params")],
    ]
    with third:
        shot = choose_picture()
    known = [name for name in cached.applicable(pair[0]) if name in cached.applicable(pair[1])]
    start = next((known.index(name) for name in FAVOURITES if name in known), 0)
    method = first.selectbox("Map", known, start, key="map", bind="query-params")
    if shot is not None:
        for place, loaded, side in zip(st.columns(2, gap="medium"), pair, ("left", "right"), strict=True):
            with place:
                show_side(loaded, shot, method, side)


def show_side(loaded: Loaded, shot: sources.Picture, method: str, side: str) -> None:
    try:
        prediction = cached.predict(loaded, shot)
        target = pointing.resolve("top", prediction)
    except XaiError as error:
        refusal(error)
        return
    st.markdown(f"**{plain(loaded.name)}**: why {plain(pointing.spoken(target, prediction))}?")
    first, second = st.columns(2)
    with first:
        show_prediction(shot, prediction, target, key=f"{side} picture")
    with second:
        result = answer(Question(loaded, shot, str(target), method))
        if isinstance(result, Refusal):
            refusal(result.error)
        else:
            show_map(shot, prediction, result, limit_of(result.values), 0.5, key=f"{side} map")


page()
