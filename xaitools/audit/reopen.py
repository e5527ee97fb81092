"""The decisions of an audit that ended, from its records: nothing is predicted or explained anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import read_json
from ..probes import Context
from .decisions import Decisions, Limits, Looker, piece_of
from .folder import RECORDS, RUN
from .records import Folder


def stored_decisions(folder: str | Path, context: Context, report: Mapping[str, Any]) -> Decisions:
    """The decisions in the records of the audit in ``folder``, as far as ``context`` has its images; ``report`` is its report.json.

    Raises DataError where the folder holds no run.
    """
    folder, told = Path(folder), report["decisions"]
    try:
        identity = str(read_json(folder / RUN)["identity"])
    except (KeyError, TypeError):
        raise DataError(f"{folder.name}: its {RUN} names no plan; audit again") from None
    store, looker, ids = Folder(folder, identity), Looker(context, int(report["seed"]), Limits()), context.dataset.ids
    name = piece_of(0).condition.name
    numbers = [int(path.stem.partition("-")[0]) for path in (folder / RECORDS).glob(f"[0-9]*-{name}.parquet")]
    made = []
    for index in sorted(number for number in numbers if number < len(ids)):
        for row in store.read(piece_of(index), [ids[index]]) or ():
            made += [each for each in looker.decided(row) if np.isfinite(each.shares).all()] if row.reason is None else []
    return Decisions(looker.classes, told["method"], told["note"], tuple(sorted(made, key=lambda each: each.key)), {})
