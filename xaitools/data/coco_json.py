"""COCO's JSON files, which anyone may have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import DataError
from .base import contents

MAX_JSON_BYTES = 2**30
FAR = 1e9

Row = Mapping[str, Any]
ID: dict[str, type] = {"id": int}
CATEGORY = ID | {"name": str}
IMAGE = ID | {"file_name": str, "width": int, "height": int}


def content(root: Path, file: str) -> Row:
    """The JSON object that the file ``file`` of a dataset holds."""
    try:
        found = json.loads(contents(root, file, MAX_JSON_BYTES))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON that can be read ({error}); get the file again") from None
    if not isinstance(found, dict):
        raise DataError(f"{file}: expected a JSON object with images, annotations and categories, this is a {type(found).__name__}")
    return found


def rows(content: Row, part: str, fields: Mapping[str, type], file: str) -> list[Row]:
    """``content[part]``, a list of objects of which each has ``fields``."""
    found = content.get(part)
    if not isinstance(found, list):
        raise DataError(f"{file}: no list {part!r}; expected COCO's format with images, annotations and categories")
    for number, row in enumerate(found):
        for field, kind in fields.items():
            if not isinstance(row, dict) or type(row.get(field)) is not kind:
                raise DataError(f"{file}: {part}[{number}] has no {field!r} that is {kind.__name__}; correct it")
    return found


def numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(type(value) in (int, float) and abs(value) < FAR for value in values)
