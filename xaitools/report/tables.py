"""Small tables as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence

Row = Sequence[str]


def text_table(heads: Row, rows: Sequence[Row], left: Collection[int] = (0,), indent: str = "") -> str:
    """Columns as wide as they need; those in ``left`` begin at the left, numbers end at the right.

    >>> print(text_table(["class", "n"], [["fish", "9"], ["moon", "10"]]))
    class   n
    fish    9
    moon   10
    """
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(row: Row) -> str:
        cells = [cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        return (indent + "  ".join(cells)).rstrip()

    return "\n".join(map(line, (heads, *rows)))


def markdown_table(heads: Row, rows: Sequence[Row], left: Collection[int] = (0,)) -> str:
    """
    >>> print(markdown_table(["class", "n"], [["a|b", "9"]]))
    | class | n |
    | :-- | --: |
    | a\\|b | 9 |
    """
    marks = [":--" if column in left else "--:" for column in range(len(heads))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, marks, *escaped))


def csv_table(heads: Row, rows: Sequence[Sequence[object]]) -> str:
    """Numbers in full, empty where undefined; a cell that a spreadsheet would take for a formula is quoted as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([[_cell(cell) for cell in row] for row in rows])
    return buffer.getvalue()


def _cell(value: object) -> object:
    return "" if value is None else f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def number(value: float | None, form: str = ".3f") -> str:
    """
    >>> number(0.5), number(None), number(12.345, ".4g")
    ('0.500', 'undefined', '12.35')
    """
    return "undefined" if value is None else format(value, form)
