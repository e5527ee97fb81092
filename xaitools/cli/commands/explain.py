"""``xaitools explain``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from ...errors import PlanError, XaiError
from ..arguments import PATH, at_commas, loaded_model, named_pictures, parsed_settings
from ..session import Session, common, with_session


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE... or DATASET")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--target", "targets", multiple=True, help="What to explain (default top); may be repeated.")
@click.option("--method", "methods", multiple=True, help="One or more, separated by commas (default lrp).")
@click.option("--out", type=PATH, help="Folder for the figure, the maps and explanation.json.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--layout", type=click.Choice(["single", "sheet"]), default="single", show_default=True)
@click.option("--scale", help="Colour limits: shared (the default of a sheet), each (of single figures), or a number.")
@click.option("--width-mm", type=float, default=180.0, show_default=True)
@click.option("--dpi", type=click.IntRange(30, 1200), default=200, show_default=True)
@click.option("--font", default="DejaVu Sans", show_default=True)
@click.option("--no-titles", is_flag=True)
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="Of a dataset, only the first N items.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated.")
@common
@with_session
def command(
    session: Session, inputs: tuple[str, ...], model_name: str, targets: tuple[str, ...], methods: tuple[str, ...], out: Path | None,
    formats: str, layout: str, scale: str | None, width_mm: float, dpi: int, font: str, no_titles: bool, limit: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Why did the model decide so?  Predictions, relevance maps and a figure.

    Several images, or a dataset such as "scenes:test?n=4", give one folder each, or with --layout sheet one figure.
    --method detection-trace shows how a detector came to its boxes: proposals or anchors, their scores, what was suppressed
    and by what; it writes trace.json and the figure trace as well.  After Ctrl-C the images and methods that were done are written,
    and the same command with the same --out goes on with the windows or masks that were left.
    """
    from ...attribution.explanation import Interrupted, explain_image
    from ...attribution.kept import clear, unfinished
    from ...report.store import check_formats, check_out, save_explanations

    names = at_commas(methods) or ["lrp"]
    wanted = check_formats(at_commas([formats]))
    params = parsed_settings(settings, {*names, "model"})
    pictures = list(named_pictures(inputs, limit))
    folders: list[Path] = []
    if out is not None:  # before anything long
        from ...report.figures import check_look

        check_look(layout, scale, width_mm, dpi, font)
        folders = check_out(out, [name for name, _ in pictures])
    model = loaded_model(model_name, device, params.get("model", {}))
    done, skipped, stopped = [], [], False
    for (name, picture), folder in zip(pictures, folders or itertools.repeat(None), strict=False):
        try:
            sample, data = picture()
            with session.progress(name) as progress:
                explanation = explain_image(
                    model, sample, targets or ("top",), names, name=name, seed=seed, params=params, data=data, progress=progress,
                    unfinished=folder,
                )  # fmt: skip
        except XaiError as error:
            if len(pictures) == 1:
                raise
            skipped.append({"id": name, "reason": str(error)})
            session.say(f"skipped {name}: {error}")
            continue
        except KeyboardInterrupt as stop:
            if isinstance(stop, Interrupted):
                done.append((stop.done, folder))
            if unfinished(folders):
                session.say(f"what was found so far is kept in {out}; the same command goes on from there")
            if not done or out is None:
                raise
            stopped = True
            break
        done.append((explanation, folder))
    if not done:
        raise PlanError(f"none of {len(pictures)} images could be explained; the first: {skipped[0]['reason']}")
    look = {"scale": scale, "width_mm": width_mm, "dpi": dpi, "font": font, "titles": not no_titles}
    documents, files = save_explanations(
        [each for each, _ in done], out, wanted, layout=layout, folders=[folder for _, folder in done if folder], **look
    )
    for file in files:
        session.say(f"wrote {file}")
    if stopped:
        raise KeyboardInterrupt
    clear(folders)
    result: Any = documents[0] if len(pictures) == 1 else {"explanations": documents, "skipped": skipped}
    session.result(result, "\n".join(_told(document) for document in documents))


def _told(document: dict[str, Any]) -> str:
    from ...report.shares import is_lrp, ledger_words

    lines = [f"{document['image']}: {len(document['predictions'])} predictions by {document['model']}"]
    for row in document["explanations"]:
        told = row.get("error") or f"score {row['score']:.4g}, sum of the map {row['relevance_sum']:.4g}, {row['seconds']:.1f} s"
        lines.append(f"  {row['target']:24} {row['method']:20} {told}")
        if "ledger" in row and is_lrp(row["method"]):
            ledger = [(each["layer"], each["absorbed"]) for each in row["ledger"]]
            lines.append(f"    {ledger_words(row['score'], row['relevance_sum'], ledger)}")
    return "\n".join(lines)
