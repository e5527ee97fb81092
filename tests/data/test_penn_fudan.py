"""Penn-Fudan pedestrians: a hand-made folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.made import check, extents, paint, rectangles, refused, write
from xaitools.data import load_dataset, readable
from xaitools.types import Sample

PENN_HEAD = '# Compatible with PASCAL Annotation Version 1.00\nObjects with ground truth : {} {{ "PASpersonWalking" }}\n'
PENN_BOX = 'Bounding box for object {} "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : ({}, {}) - ({}, {})\n'


@pytest.fixture
def penn_root(tmp_path: Path) -> Path:
    root = tmp_path / "penn"
    for number in range(9):
        write(
            root / f"Annotation/P{number}.txt", PENN_HEAD.format(2) + PENN_BOX.format(1, 3, 5, 10, 12) + PENN_BOX.format(2, 21, 1, 32, 24)
        )
        paint(root / f"PNGImages/P{number}.{'png' if number % 2 else 'jpg'}")
        paint(root / f"PedMasks/P{number}_mask.png", rectangles((2, 4, 10, 12), (20, 0, 32, 24)))
    return root


def test_penn_fudan_every_fourth_is_test(penn_root: Path) -> None:
    assert list(load_dataset(f"penn-fudan:{penn_root}#test").ids) == ["P3", "P7"]
    assert list(load_dataset(f"penn-fudan:{penn_root}#train").ids) == ["P0", "P1", "P2", "P4", "P5", "P6", "P8"]
    assert load_dataset(f"penn-fudan:{penn_root}").name.endswith("#test")
    refused(lambda: load_dataset(f"penn-fudan:{penn_root}#val"), "no split 'val'", "test, train")


def test_penn_fudan_boxes_are_the_extents_of_their_masks(penn_root: Path) -> None:
    dataset = load_dataset(f"penn-fudan:{penn_root}#test")
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes) == ("detection", ("person",))
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [20, 0, 32, 24]]
    assert torch.equal(extents(sample.masks), sample.boxes)


def test_penn_fudan_broken_items(penn_root: Path) -> None:
    write(penn_root / "Annotation/P0.txt", PENN_HEAD.format(2) + PENN_BOX.format(1, 3, 5, 10, 12))
    write(penn_root / "Annotation/P1.txt", "nothing")
    (penn_root / "PNGImages/P2.jpg").unlink()
    (penn_root / "PedMasks/P4_mask.png").unlink()
    dataset = load_dataset(f"penn-fudan:{penn_root}#train")
    for index, words in enumerate(
        [("P0.txt", "states 2 objects", "1 boxes"), ("P1.txt", "no number"), ("PNGImages/P2",), ("P4_mask.png",)]
    ):
        refused(lambda index=index: dataset[index], *words)
    assert sum(isinstance(item, Sample) for _, item in readable(dataset)) == 3
