"""Writing a dataset to disk in a layout that our readers, and other people's, know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, PlanError
from ..files import DRAFT, read_json, write_bytes, write_json
from .base import WRITERS, Dataset, Writer

PLAN = "written.json"
"""The file in the dataset's folder that says what was written there; it tells an interrupted run how to go on."""


def write_dataset(
    splits: Mapping[str, Dataset],
    layout: str,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write each split to the folder ``out`` in ``layout``; what was written, as ``xaitools scenes --json`` prints it.

    Pictures are PNG: an image of 8 bits per channel reads back as the same values.  Each file is whole or not there;
    with ``resume`` the files that an interrupted run of the same splits and layout left are kept.  An item that is
    broken or that the layout cannot hold is listed under "skipped"; what the layout has no place for of the others
    stands under "left_out".  Raises PlanError where ``out`` holds anything else, DataError where no item can be written.
    """
    out = Path(out)
    writers = {split: WRITERS[layout](dataset, split) for split, dataset in splits.items()}
    if len({(dataset.classes, dataset.semantic_classes, dataset.things) for dataset in splits.values()}) > 1:
        raise DataError(f"the splits {', '.join(splits)} have different classes; write each to a folder of its own")
    plan = {"layout": layout, "splits": {split: {"source": dataset.name, "n": len(dataset)} for split, dataset in splits.items()}}
    _claim(out, plan, resume)
    total = sum(len(dataset) for dataset in splits.values())
    written: dict[str, Any] = {}
    names: set[str] = set()
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    for split, dataset in splits.items():
        skipped = _items(dataset, writers[split], out, names, step)
        if len(skipped) == len(dataset):
            reason = f"the first: {skipped[0]['reason']}" if skipped else "there is none"
            raise DataError(f"{dataset.name}: none of {len(dataset)} items can be written as {layout}; {reason}")
        for name, data in writers[split].lists():
            write_bytes(out / name, data)
        written[split] = {
            "dataset": f"{layout}:{out}#{split}",
            "source": dataset.name,
            "n": len(dataset) - len(skipped),
            "skipped": skipped,
            "left_out": list(writers[split].left_out),
        }
    return {"layout": layout, "out": str(out), "splits": written}


def _items(dataset: Dataset, writer: Writer, out: Path, names: set[str], step: Callable[[], None]) -> list[dict[str, str]]:
    """All items written; those that cannot be, with the reason.  ``names`` grows by the files of this run."""
    skipped = []
    for index, id in enumerate(dataset.ids):
        try:
            files = writer.files(dataset[index])
        except DataError as error:
            skipped.append({"id": id, "reason": str(error)})
            files = []
        for name, data in files:
            if name in names:
                raise DataError(f"{dataset.name}: two items would be written as {name}; write the splits to folders of their own")
            names.add(name)
            if not (out / name).exists():
                write_bytes(out / name, data)
        step()
    return skipped


def _claim(out: Path, plan: dict[str, Any], resume: bool) -> None:
    """The folder ``out``, empty or with what an interrupted run of the same plan left."""
    if out.exists() and not out.is_dir():
        raise PlanError(f"--out {out}: is a file; give a new or empty folder")
    present = sorted(path.name for path in out.iterdir() if not path.name.endswith(DRAFT)) if out.is_dir() else []
    if present and not resume:
        raise PlanError(f"--out {out}: is not empty (it holds {present[0]!r}); give a new or empty folder, or --resume to go on")
    if present:
        if PLAN not in present or read_json(out / PLAN) != plan:
            raise PlanError(f"--out {out}: holds something else than this run would write; give a new or empty folder")
        for draft in out.rglob(f".*{DRAFT}"):  # left by a run that was killed
            draft.unlink(missing_ok=True)
    write_json(out / PLAN, plan)
