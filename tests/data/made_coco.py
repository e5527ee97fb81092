"""A COCO folder made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.data.made import HEIGHT, WIDTH, paint, write


def mini_coco() -> dict[str, list[dict]]:
    column = np.repeat(np.arange(WIDTH) < 4, HEIGHT)
    return {
        "categories": [
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 3, "name": "car"},
            {"id": 99, "name": "sky", "isthing": 0},
        ],
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "license": 2},
            {"id": 5, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2, 4, 8, 8], "segmentation": [[2, 4, 10, 4, 10, 12, 2, 12]], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 3], "segmentation": [[5, 5, 6, 5, 6, 8]], "iscrowd": 0},
            {
                "id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 4, 99], "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, int(column.sum()), int((~column).sum())]},
            },
        ],
    }  # fmt: skip


def write_coco(root: Path, content: object, split: str = "val2017") -> str:
    write(root / f"annotations/instances_{split}.json", content if isinstance(content, str) else json.dumps(content))
    for name in ("a", "b"):
        paint(root / split / f"{name}.jpg")
    return f"coco:{root}#{split}"
