"""``xaitools scenes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..arguments import PATH
from ..session import Session, common, with_session


@click.command()
@click.option("--out", type=PATH, required=True, help="New or empty folder for the dataset.")
@click.option("--layout", required=True, help="camvid, cityscapes, coco, folder or voc.")
@click.option("--n", default=200, show_default=True, help="Scenes in each split.")
@click.option("--split", "splits", multiple=True, help="train, val or test; may be repeated (default: all three).")
@click.option("--size", default=96, show_default=True, help="Side of the pictures in pixels.")
@click.option("--shortcut", default="none", show_default=True, help="background, texture, pose, light, tag or cooccurrence.")
@click.option("--rho", type=float, help="How often the shortcut follows the class (default 1 with a shortcut).")
@click.option("--prevalence", default=0.3, show_default=True, help="Share of scenes with a tag, and with a companion.")
@click.option("--others", default=1.0, show_default=True, help="How often there are objects of other classes than the subject's.")
@click.option("--resume", is_flag=True, help="Go on with the same scenes in --out.")
@common
@with_session
def command(
    session: Session, out: Path, layout: str, n: int, splits: tuple[str, ...], size: int, shortcut: str, rho: float | None,
    prevalence: float, others: float, resume: bool, seed: int, device: str,
) -> None:  # fmt: skip
    """Drawn scenes on disk, in a layout that other tools know: pictures, class maps, boxes and masks.

    The layout folder holds whole pictures by the class of their subject.
    """
    from ...data.scenes import SPLITS, Scenes
    from ...data.writing import write_dataset

    scenes = {split: Scenes(split, n, seed, size, shortcut, rho, prevalence, others) for split in dict.fromkeys(splits or SPLITS)}
    with session.progress("scenes") as progress:
        result = write_dataset(scenes, layout, out, resume=resume, progress=progress)
    for split, row in result["splits"].items():
        for item in row["skipped"]:
            session.say(f"skipped {item['id']}: {item['reason']}")
        for remark in row["left_out"]:
            session.say(f"{split}: not in this layout: {remark}")
    session.result(result, _told(result))


def _told(result: dict[str, Any]) -> str:
    return "\n".join(f"{row['n']} scenes: {row['dataset']}" for row in result["splits"].values())
