"""Charts, as Vega-Lite that streamlit draws itself: in the colours of its theme, on no other host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xaitools.probes import CUES
from xaitools.report.colours import CLASSES
from xaitools.report.probe_figures import CUE, OTHER

Facts = Mapping[str, Any]
KINDS = ("a cue that can be a shortcut", "robustness")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "stroke", "triangle-right")
"""Of clusters, so that they are told apart without colour too."""
ORDERS = ("#0072b2", "#808080")
"""Of a map's own order of deleting and of a random one, which is dashed as well."""


def drop_rows(reports: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """A row for the primary drop of each probe of each model, in points; what is no drop is left out."""
    rows = []
    for model, report in reports.items():
        for name, row in report["probes"].items():
            if "measure" in row:
                continue
            primary = row["primary"]
            low, high = primary["ci"] or (None, None)
            rows.append(
                {
                    "model": model,
                    "family": row["family"],
                    "probe": name,
                    "said": f"{row['family']}: {name} (n {row['n']})",
                    "kind": KINDS[row["family"] not in CUES],
                    "value": primary["value"],
                    "drop": _points(primary["drop"]),
                    "low": _points(low),
                    "high": _points(high),
                    "n": row["n"],
                    "p": primary["p"],
                    "reading": primary["says"],
                }
            )
    return rows


def _points(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def drops(rows: Sequence[Facts], metric: str) -> dict[str, Any]:
    """A bar for each row of ``drop_rows`` with its 95 % interval; a click chooses the probe ("chosen")."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    y: dict[str, Any] = {"y": {"field": "said", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}}
    if len(models) > 1:
        y["yOffset"] = {"field": "model", "sort": models}
        scale, field = {"domain": models, "range": list(CLASSES[: len(models)])}, "model"
    else:
        seen = {kind: colour for kind, colour in zip(KINDS, (CUE, OTHER), strict=True) if any(row["kind"] == kind for row in rows)}
        scale, field = {"domain": list(seen), "range": list(seen.values())}, "kind"
    colour = {"field": field, "type": "nominal", "scale": scale, "title": None, "legend": {"orient": "top", "labelLimit": 400}}
    x = {"type": "quantitative", "title": f"drop of {metric} in points, 95 % interval"}
    tips = [{"field": name} for name in ("model", "probe", "drop", "low", "high", "n", "reading")]
    bars = {
        "mark": {"type": "bar", "opacity": 0.75},
        "params": [{"name": "chosen", "select": {"type": "point", "fields": ["probe"]}}],
        "encoding": {"x": x | {"field": "drop"}, **y, "color": colour, "tooltip": tips},
    }
    # a thin line of the theme's grey is seen on a bar and on both backgrounds
    ends = {
        "mark": {"type": "rule", "strokeWidth": 2, "color": "#808080"},
        "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, **y},
    }
    none = {
        "transform": [{"filter": "datum.drop === null"}],
        "mark": {"type": "text", "align": "left", "dx": 4, "text": "undefined", "color": "#808080"},
        "encoding": {"x": x | {"datum": 0}, **y},
    }
    lines = len({row["said"] for row in rows})
    return {"layer": [bars, ends, none], "height": 130 + lines * (28 if len(models) == 1 else 8 + 18 * len(models))}


def drops_in_words(rows: Sequence[Facts]) -> str:
    return "Drops in points: " + "; ".join(
        f"{row['model']}, {row['said']}: {'undefined' if row['drop'] is None else row['drop']}"
        + ("" if row["low"] is None else f" [{row['low']}, {row['high']}]")
        for row in rows
    )


def scatter_rows(facts: Facts) -> list[dict[str, Any]]:
    """A row for each decision of a class that ``spray`` placed."""
    view = facts["views"][facts["view"]]
    names = cluster_names(facts["clusters"])
    return [
        {"id": str(id), "target": str(target), "cluster": names[int(own)], "x": float(x), "y": float(y)}
        for id, target, own, x, y in view["points"]
    ]


def cluster_names(clusters: Sequence[Facts]) -> list[str]:
    """What clusters are called."""
    return [f"{number}{' (suspicious)' * bool(each['suspicious'])}, n {each['size']}" for number, each in enumerate(clusters, 1)]


def scatter(names: Sequence[str], view: str) -> dict[str, Any]:
    """The rows of ``scatter_rows`` as points; clicks (with shift, several) choose some ("chosen"), dragging an area ("area")."""
    axis = {"type": "quantitative", "scale": {"zero": False, "nice": False, "padding": 12}, "axis": {"labels": False, "ticks": False}}
    what = "in the image" if view == "place" else "about the object"
    legend = {"orient": "top", "columns": 3, "symbolSize": 90}
    return {
        "mark": {"type": "point", "size": 70, "filled": True, "opacity": 0.85},
        "params": [
            {"name": "chosen", "select": {"type": "point", "fields": ["id", "target"]}},
            {"name": "area", "select": {"type": "interval"}},
        ],
        "encoding": {
            "x": axis | {"field": "x", "title": f"t-SNE of the maps {what}: first axis"},
            "y": axis | {"field": "y", "title": "second axis"},
            "color": {"field": "cluster", "type": "nominal", "title": "cluster", "legend": legend,
                      "scale": {"domain": list(names), "range": list(CLASSES[: len(names)])}},
            "shape": {"field": "cluster", "type": "nominal", "title": "cluster", "legend": legend,
                      "scale": {"domain": list(names), "range": list(SHAPES[: len(names)])}},
            "tooltip": [{"field": name} for name in ("id", "target", "cluster")],
        },
        "height": 360,
    }  # fmt: skip


def curves(lines: Mapping[str, Sequence[float]], share: float) -> dict[str, Any]:
    """The score along the share that is deleted, a line for each of ``lines`` at equal steps from 0 to 100 %; a rule at ``share``."""
    rows = [{"deleted": 100 * step / (len(values) - 1), "score": value, "order": name}
            for name, values in lines.items() for step, value in enumerate(values)]  # fmt: skip
    x = {"type": "quantitative", "title": "deleted, %"}
    names = {"field": "order", "type": "nominal", "title": None, "legend": {"orient": "bottom", "columns": 1}}
    return {
        "layer": [
            {
                "data": {"values": [{"deleted": share}]},
                "mark": {"type": "rule", "color": "#808080"},
                "encoding": {"x": x | {"field": "deleted"}},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "x": x | {"field": "deleted"},
                    "y": {"field": "score", "type": "quantitative", "scale": {"zero": True}},
                    "color": names | {"scale": {"domain": list(lines), "range": list(ORDERS)}},
                    "strokeDash": names | {"scale": {"domain": list(lines), "range": [[1, 0], [5, 3]]}},
                    "tooltip": [{"field": name, "format": ".3f"} for name in ("deleted", "score")],
                },
            },
        ],
        "height": 260,
    }
