"""``xaitools evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..arguments import PATH, in_words, loaded_model, parsed_settings
from ..session import Session, common, judging, running, with_session

Facts = Mapping[str, Any]


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", help="A model string, e.g. unet-scenes.")
@click.option("--predictions", type=PATH, help="In place of --model: .txt or .png files by image id, or COCO results.")
@click.option("--iou", default="0.5", show_default=True, help="Of boxes: a level, several with commas, or FIRST:LAST:STEP.")
@click.option(
    "--score", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="From which a box counts in precision and recall."
)
@judging
@running
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str | None, predictions: Path | None, iou: str, score: float, classes_map: Path | None,
    cluster: str | None, groups: Path | None, limit: int | None, batch_size: int, workers: int, settings: tuple[str, ...], seed: int,
    device: str,
) -> None:  # fmt: skip
    """The task's metrics on clean data, with 95 % intervals: of a model, or of predictions that lie on disk."""
    if (model_name is None) == (predictions is None):
        raise click.UsageError("give either --model or --predictions")
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...metrics.detections import parsed_levels
    from ...metrics.evaluate import evaluate as run
    from ...metrics.groups import clusters_of, groups_of, read_columns
    from ...metrics.stored import read_stored

    levels = parsed_levels(iou)
    data = load_dataset(dataset)
    mapping = read_classes_map(classes_map) if classes_map else None
    columns = read_columns(groups, data.ids) if groups else None
    clusters = clusters_of(cluster, data.ids, columns) if cluster is not None else None
    options = parsed_settings(settings, {"model"}).get("model", {})
    model: Any
    if model_name is not None:
        model = loaded_model(model_name, device, options, workers)
    elif options:
        raise click.UsageError("--set model.* needs --model; predictions on disk are taken as they are")
    else:
        model = read_stored(predictions or "", data, mapping)
    with session.progress("evaluate") as progress:
        result = run(
            model, data, limit=limit, batch_size=batch_size, seed=seed, progress=progress, iou=levels, score=score,
            groups=groups_of(columns) if columns else None, clusters=clusters, classes_map=mapping,
        )  # fmt: skip
    for item in result["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for warning in result.get("warnings", []):
        session.say(f"warning: {warning}")
    session.result(result, told(result))


def told(result: Facts) -> str:
    """The document as a few short tables."""
    from ...report.tables import number

    metrics = {name: value for name, value in result["metrics"].items() if name != "per_class" and value is not None}
    parts = [
        f"{result['model']} on {result['dataset']}: {result['n']} images"
        + (f", {len(result['skipped'])} skipped" * bool(result["skipped"])),
        f"{result['metric']} {in_words(result['value'], result['ci'])}{_sure(result)}",
        *_wrapped([f"{name} {number(value)}" for name, value in metrics.items() if name not in (result["metric"], "precision", "recall")]),
    ]
    if len(result.get("iou", ())) > 1:
        parts += _wrapped([f"IoU {level} {number(value)}" for level, value in result["iou"].items()])
    if "detections" in result:
        parts += _boxes(result["detections"], result)
    else:
        parts += ["", _labels(result)]
    if "groups" in result:
        parts += ["", *_groups(result["groups"])]
    return "\n".join(parts)


def _sure(result: Facts) -> str:
    """What the interval behind the metric rests on."""
    from ...metrics.coverage import coverage_in_words

    made = result["intervals"]
    units = f"{made['units']} {made['unit']}s"
    if made["coverage"] is None:
        low, high = result["range"] or (None, None)
        return f"; only {units}, so no interval" + ("" if low is None else f"; each alone has {low:.3f} to {high:.3f}")
    held = f"such intervals of drops held the truth in {coverage_in_words(made)} of simulated samples"
    return "" if result["ci"] is None else f", 95 % interval over {units}; {held}"


def _boxes(found: Facts, result: Facts) -> list[str]:
    from ...report.tables import number, text_table

    heads = ["class", result["metric"].removeprefix("m"), "precision", "recall", "truths", "missed", "boxes", "right", "duplicate",
             "place", "class", "both", "nothing", "ignored"]  # fmt: skip
    kinds = ("right", "duplicate", "wrong_place", "wrong_class", "both_wrong", "background", "ignored")
    shown = {name: row for name, row in found["per_class"].items() if row["truths"] or row["detections"]}
    rows = [
        [name, _short(result["metrics"]["per_class"][name]), _short(row["precision"]), _short(row["recall"]), str(row["truths"]),
         str(row["missed"]["all"]), str(row["detections"]), *(str(row[kind]) for kind in kinds)]
        for name, row in shown.items()
    ]  # fmt: skip
    rows.append(
        ["all", _short(result["value"]), _short(found["precision"]), _short(found["recall"]), str(found["truths"]),
         str(found["missed"]["all"]), str(found["detections"]), *(str(found["kinds"][kind]) for kind in kinds)]
    )  # fmt: skip
    return [
        f"precision {in_words(found['precision'], found['precision_ci'])}, recall {in_words(found['recall'], found['recall_ci'])} "
        f"of boxes with a score of at least {number(found['score'], 'g')}, right from IoU {number(found['iou'], 'g')} on",
        "",
        "Each box is right or wrong for one reason: a duplicate, in the wrong place, of the wrong class, both, or on nothing.",
        text_table(heads, rows),
    ]


def _labels(result: Facts) -> str:
    from ...report.tables import text_table

    name = {"mIoU": "IoU"}.get(result["metric"], "recall")
    unit = result["confusion"]["counts"]
    rows = [
        [each, _short(result["metrics"]["per_class"][each]), _short(row["precision"]), _short(row["recall"]), f"{row['truths']:,}"]
        for each, row in result["confusion"]["per_class"].items()
    ]
    heads = ["class", name, "precision", "recall", f"true {unit}"]
    if name == "recall":
        heads, rows = [heads[0], *heads[2:]], [[row[0], *row[2:]] for row in rows]
    return text_table(heads, rows)


def _groups(found: Facts) -> list[str]:
    from ...report.tables import text_table

    rows = [[name, str(row["n"]), in_words(row["value"], row["ci"]), "few" * row["small"]] for name, row in found["per_group"].items()]
    chance = "" if found["p"] is None else f"; groups dealt at random: {found['gap_random']:.3f} on average, p = {found['p']:.3f}"
    gap = f"worst {found['worst']}, best {found['best']}, gap {in_words(found['gap'], found['gap_ci'])}{chance}"
    return [text_table(["group", "n", "value", ""], rows, left=(0, 3)), gap]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _wrapped(words: list[str], most: int = 6) -> list[str]:
    return ["  ".join(words[start : start + most]) for start in range(0, len(words), most)]
