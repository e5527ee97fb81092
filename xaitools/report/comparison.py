"""Several models on the same images with the same changes, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_json, write_text
from ..probes import CUES
from ..types import ProbeResult
from .parts import (
    Facts,
    Scale,
    axis,
    document,
    e,
    interval,
    plot,
    points,
    points_interval,
    scale_of,
    section,
    table,
    title,
    value,
    warnings,
)
from .shift import KEY, bars

SHARES = (
    "Where the relevance of one and the same decision lies before (upper bar) and after (lower bar) each change; the tick is the object's "
    "share of the image. The models' own reports have the numbers and their intervals."
)


def save_comparison(results: Mapping[str, ProbeResult], out: str | Path) -> list[Path]:
    """Writes comparison.json and comparison.html into ``out``, where folders of the same names hold the models' reports."""
    folder = Path(out).expanduser()
    content = comparison({name: result.report for name, result in results.items()})
    write_text(folder / "comparison.html", comparison_page(content))
    write_json(folder / "comparison.json", content)
    return [folder / "comparison.json", folder / "comparison.html"]


def comparison(reports: Mapping[str, Facts]) -> dict[str, Any]:
    """The content of comparison.json: clean metric, controls and primary drops of each model."""
    families = {name: row["family"] for report in reports.values() for name, row in report["probes"].items()}
    models = [
        {key: report[key] for key in ("model", "task", "metric", "n", "controls", "warnings")}
        | {
            "folder": folder,
            "clean": {key: report["clean"][key] for key in ("value", "ci")},
            "probes": {name: row["primary"] for name, row in report["probes"].items()},
            "relevance": {name: row["relevance"] for name, row in report["probes"].items() if "relevance" in row},
        }
        for folder, report in reports.items()
    ]
    return {"dataset": next(iter(reports.values()))["dataset"], "families": families, "models": models}


def comparison_page(content: Facts) -> str:
    """comparison.html: probes in rows, models in columns, all drops on one scale."""
    models, families = content["models"], content["families"]
    scale = scale_of(cell for model in models for kind in ("probes", "controls") for cell in model[kind].values())
    values = [each["clean"] for each in models]
    clean = [f"{e(models[0]['metric'])} <b>{value(each['value'])}</b> <small>{interval(each['ci'])}</small>" for each in values]
    rows: list[Sequence[str] | str] = [["<b>unchanged</b>", *clean], ["", *([axis(scale)] * len(models))]]
    for name, family in families.items():
        look = "cue" if family in CUES else "other"
        rows.append([f"{e(family)}<br><small>{e(name)}</small>", *(_cell(model["probes"].get(name), scale, look) for model in models)])
    rows.append("Controls")
    for name in dict.fromkeys(name for model in models for name in model["controls"]):
        rows.append([e(name), *(_cell(model["controls"].get(name), scale, "other") for model in models)])
    explained = [name for name in families if any(name in model["relevance"] for model in models)]
    shares = [
        [f"{e(families[name])}<br><small>{e(name)}</small>", *(_shares(model["relevance"].get(name)) for model in models)]
        for name in explained
    ]
    heads = [f'<a href="{e(each["folder"])}/report.html">{e(each["model"])}</a><br><small>{e(each["n"])} images</small>' for each in models]
    said = (
        "Drops in points with 95 % intervals, on the same images with the same changes; more is worse. "
        "The intervals are of each model alone: two that overlap may still differ."
    )
    names = [e(model["model"]) for model in models]
    moved = f"<p>{SHARES}</p>{table([KEY, *names], shares, look='compare')}" if shares else ""
    body = [
        title("shortcut probes", f"{len(models)} models side by side", content["dataset"]),
        f'<p class="lead">{said}</p>',
        section("Drops", table(["", *heads], rows, look="compare")),
        section("What changed in the explanation", moved) if moved else "",
        warnings(list(dict.fromkeys(f"{model['model']}: {each}" for model in models for each in model["warnings"]))),
    ]
    return document("Models side by side", body)


def _shares(found: Facts | None) -> str:
    if found is None or not found["n"]:
        return "<small>not measured</small>"
    before, after = (found[side]["object"] for side in ("before", "after"))
    if before is None or after is None:
        return bars(found)
    return f"{bars(found)}<small>object {100 * before:.0f} → {100 * after:.0f} %, {found['n']} images</small>"


def _cell(found: Facts | None, scale: Scale, look: str) -> str:
    if found is None:
        return "<small>not run</small>"
    return f"<b>{points(found['drop'])}</b> <small>{points_interval(found['ci'])}</small>{plot(found, scale, look)}"
