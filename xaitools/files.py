"""Files that are written whole or not at all, also after a kill or a power cut, and JSON that is not trusted when read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DataError

DRAFT = ".draft"
UNFINISHED = "unfinished-"
"""Begins the names of files from which a computation that was broken off goes on."""

MAX_JSON_BYTES = 64 * 2**20


def write_bytes(path: str | Path, data: bytes) -> None:
    """``data`` as ``path``, folders made as needed; what stood there before stays until the new file is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """``value`` as UTF-8 JSON in the order given; undefined numbers become null."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises DataError when the file is missing, larger than ``MAX_JSON_BYTES``, or no JSON."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: more than {MAX_JSON_BYTES // 2**20} MB; no file of ours is so large")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a JSON file written by xaitools") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not JSON, or cut short ({error}); make it again") from None


def read_csv(path: str | Path, line: str) -> list[tuple[int, list[str]]]:
    """(line number, stripped cells) of the lines that are not empty; ``line`` says in words what one should be.

    Raises DataError when the file is missing, larger than ``MAX_JSON_BYTES``, empty, or no CSV.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: more than {MAX_JSON_BYTES // 2**20} MB; expected a CSV file with one line an item")
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a CSV file {line}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); expected lines {line}") from None
    rows = [row for row in rows if any(row[1])]
    if not rows:
        raise DataError(f"{path}: empty; expected lines {line}")
    return rows


def folder_name(name: str) -> str:
    """``name`` as every file system takes it.

    >>> folder_name("smp:Unet?encoder=resnet18")
    'smp_Unet_encoder_resnet18'
    """
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("._")[:80] or "unnamed"


def canonical(value: Any) -> str:
    """JSON of ``value`` that is the same for equal values: what hashes are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(value: Any) -> Any:
    """``value`` made of JSON's own types: arrays become lists, undefined numbers None, anything else its string.

    >>> plain({"drop": float("nan"), "ci": (0.5, 1)})
    {'drop': None, 'ci': [0.5, 1]}
    """
    match value:
        case None | bool() | str():
            return value
        case int() | float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case set() | frozenset():
            return sorted((plain(each) for each in value), key=str)
    # tensors, arrays and their scalars, without importing their libraries
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)
