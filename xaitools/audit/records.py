"""The records of a run: one row for each item under each condition, with its sufficient statistics.

With a folder every piece is one Parquet file, written whole or not at all; what is there and sound is not done again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


KEYS = ("item", "condition", "severity", "reason")
"""The other columns of the table are statistics."""


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
    """The rows of ``to_table``; statistics come back one-dimensional, and are read only."""
    items, conditions, severities, reasons = (table.column(name).to_pylist() for name in KEYS)
    columns = {name: _column(table.column(name)) for name in table.column_names if name not in KEYS}
    return [
        Row(intern(item), intern(condition), severity, reason, _Cells(columns, place))
        for place, (item, condition, severity, reason) in enumerate(zip(items, conditions, severities, reasons, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class _Column:
    values: NDArray[Any]
    offsets: NDArray[np.int32]
    there: NDArray[np.bool_]


def _column(lists: pa.ChunkedArray) -> _Column:
    whole = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    values = whole.values.to_numpy(zero_copy_only=False).astype(lists.type.value_type.to_pandas_dtype(), copy=False)
    return _Column(values, whole.offsets.to_numpy(), whole.is_valid().to_numpy(zero_copy_only=False))


class _Cells(Mapping[str, NDArray[Any]]):
    """The statistics of one row, cut from the columns of all when asked for: an array for each would take a kilobyte a row."""

    __slots__ = ("_columns", "_place")

    def __init__(self, columns: Mapping[str, _Column], place: int) -> None:
        self._columns, self._place = columns, place

    def __getitem__(self, name: str) -> NDArray[Any]:
        column, place = self._columns[name], self._place
        if not column.there[place]:
            raise KeyError(name)
        return column.values[column.offsets[place] : column.offsets[place + 1]]

    def __iter__(self) -> Iterator[str]:
        return (name for name, column in self._columns.items() if column.there[self._place])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Memory:
    """Pieces kept in memory, as they would come back from files."""

    def __init__(self) -> None:
        self._done: dict[str, list[Row]] = {}

    def read(self, piece: Piece, items: Sequence[str]) -> list[Row] | None:
        """The rows of a piece that is done."""
        return self._done.get(piece.id)

    def write(self, piece: Piece, rows: Sequence[Row]) -> None:
        self._done[piece.id] = from_table(to_table(rows))


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
