"""The records of a run: one row for each item under each condition, with its sufficient statistics.

With a folder every piece is one Parquet file, written whole or not at all; what is there and sound is not done again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ..errors import PlanError
from ..files import write_bytes
from .folder import RECORDS
from .plan import CLEAN, Piece

SHIFT = "relevance."
"""Prefix of the conditions of rows that say where relevance lies (see ``shift``); they are no part of the metric."""

MEASURED = "measured."
"""Prefix of the columns that a probe measured itself; they are no part of the metric."""

HALVED = "halved"
"""Column of the rows of a piece for which memory did not suffice: the size of its smallest batch; no part of the metric."""


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """What came of one item under one condition: statistics, or the reason why there are none."""

    item: str
    condition: str
    severity: int
    reason: str | None = None
    statistics: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def metric(self) -> dict[str, NDArray[Any]]:
        return {name: values for name, values in self.statistics.items() if name != HALVED and not name.startswith(MEASURED)}


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Columns item, condition, severity, reason, and one list column for each statistic (null where there is none)."""
    columns: dict[str, pa.Array] = {
        "item": pa.array([row.item for row in rows], pa.string()),
        "condition": pa.array([row.condition for row in rows], pa.string()),
        "severity": pa.array([row.severity for row in rows], pa.int8()),
        "reason": pa.array([row.reason for row in rows], pa.string()),
    }
    for name in dict.fromkeys(name for row in rows for name in row.statistics):
        values = [row.statistics.get(name) for row in rows]
        kind = next(value.dtype for value in values if value is not None)
        columns[name] = pa.array([None if value is None else value.ravel() for value in values], pa.list_(pa.from_numpy_dtype(kind)))
    return pa.table(columns)


def from_table(table: pa.Table) -> list[Row]:
    """The rows of ``to_table``; statistics come back one-dimensional."""
    names = [name for name in table.column_names if name not in ("item", "condition", "severity", "reason")]
    kinds = {name: table.schema.field(name).type.value_type.to_pandas_dtype() for name in names}
    columns = {name: table.column(name) for name in table.column_names}
    rows = []
    for index in range(table.num_rows):
        cells = {name: columns[name][index] for name in names}
        statistics = {name: np.asarray(cell.values, dtype=kinds[name]) for name, cell in cells.items() if cell.is_valid}
        item, condition, severity, reason = (columns[name][index].as_py() for name in ("item", "condition", "severity", "reason"))
        rows.append(Row(intern(item), intern(condition), severity, reason, statistics))
    return rows


class Memory:
    """Pieces kept in memory."""

    def __init__(self) -> None:
        self._done: dict[str, list[Row]] = {}

    def read(self, piece: Piece, items: Sequence[str]) -> list[Row] | None:
        """The rows of a piece that is done."""
        return self._done.get(piece.id)

    def write(self, piece: Piece, rows: Sequence[Row]) -> None:
        self._done[piece.id] = list(rows)


class Folder:
    """Pieces kept as Parquet files that carry the plan's identity."""

    def __init__(self, out: Path, identity: str) -> None:
        self.root, self.identity = out / RECORDS, identity

    def path(self, piece: Piece) -> Path:
        return self.root / f"{piece.id}.parquet"

    def read(self, piece: Piece, items: Sequence[str]) -> list[Row] | None:
        """The rows of a piece that is there and whole; None where it must be done (again)."""
        path = self.path(piece)
        if not path.is_file():
            return None
        try:
            table = parquet.read_table(io.BytesIO(path.read_bytes()))
            rows = from_table(table)
        except (OSError, pa.ArrowException, KeyError, AttributeError, ValueError, TypeError):
            return None
        known = (table.schema.metadata or {}).get(b"plan", b"").decode() == self.identity
        return rows if known and [row.item for row in rows] == list(items) else None

    def write(self, piece: Piece, rows: Sequence[Row]) -> None:
        data = parquet_bytes(to_table(rows).replace_schema_metadata({"plan": self.identity}))
        try:
            write_bytes(self.path(piece), data)
        except OSError as error:
            raise PlanError(f"{self.path(piece)}: cannot be written ({error.strerror}); make room and go on with --resume") from None

    def tidy(self, pieces: Iterable[Piece]) -> None:
        """Removes what a kill left half done."""
        keep = {self.path(piece).name for piece in pieces}
        for path in self.root.glob("*") if self.root.is_dir() else ():
            if path.name not in keep:
                path.unlink()


def joined(rows: Sequence[Row]) -> pa.Table:
    """All rows as one table, clean first."""
    order = sorted(rows, key=lambda row: (row.condition != CLEAN.probe, row.condition, row.severity))
    return to_table(order)


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()
