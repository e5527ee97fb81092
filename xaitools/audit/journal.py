"""A long job, image by image in a file of lines, so that it can go on after a kill.

The first line is the plan; each further line is an image that is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..files import write_text


def opened(journal: Path | None, plan: Mapping[str, Any], resume: bool, what: str) -> dict[str, Any]:
    """What an earlier run of the same plan has done, by image; begins the journal if there is none.

    ``what`` is what the folder holds, in words: "an assessment".  Raises PlanError where it holds one already and nobody
    asked to resume, or one of another plan.
    """
    if journal is None:
        return {}
    if not journal.is_file():
        write_text(journal, json.dumps(plan) + "\n")
        return {}
    if not resume:
        raise PlanError(f"{journal.parent} holds {what} already; give a new folder, or --resume to go on with it")
    text = journal.read_text(encoding="utf-8")
    first, *lines = text.splitlines() or [""]
    before = _parsed(first)
    if before != json.loads(json.dumps(plan)):
        differ = [key for key in plan if not isinstance(before, dict) or before.get(key) != json.loads(json.dumps(plan[key]))]
        raise PlanError(f"{journal.parent} holds {what} with other {', '.join(differ)}; give a new folder")
    if not text.endswith("\n"):  # what comes next must not be glued to the line at which it was killed
        with journal.open("a", encoding="utf-8") as file:
            file.write("\n")
    entries = [each for line in lines if isinstance(each := _parsed(line), dict) and {"id", "rows"} <= each.keys()]
    return {each["id"]: each["rows"] for each in entries}


def noted(journal: Path | None, id: str, rows: Any) -> None:
    """``rows``, or the reason why there are none, is what came of the image ``id``."""
    if journal is not None:
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": id, "rows": rows}) + "\n")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # the last line of a run that was killed
        return None
