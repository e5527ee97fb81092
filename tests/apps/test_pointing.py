"""A place on the picture becomes the target that a person means."""

import pointing
import pytest
import torch

from xaitools.errors import TargetError
from xaitools.types import Prediction

CLASSES = ("cat", "dog")
BOXES = Prediction(
    "detection", CLASSES, (40, 60), torch.tensor([0, 1, 1]), torch.tensor([0.9, 0.8, 0.1]),
    boxes=torch.tensor([[0.0, 0, 50, 30], [10, 5, 20, 15], [12, 6, 16, 10]]),
)  # fmt: skip
SEGMENTS = Prediction(
    "segmentation", CLASSES, (2, 3), torch.tensor([0, 1]), torch.tensor([0.9, 0.8]), semantic=torch.tensor([[0, 0, 1], [0, 0, 0]])
)


def pick(prediction: Prediction, value: dict, unit: str = "pixel") -> str:
    return str(pointing.picked(prediction, value, unit=unit, name="dog", shown=2))


@pytest.mark.parametrize(
    ("place", "expected"),
    [((13, 7), "box:1"), ((2, 2), "box:0"), ((49, 29), "box:0"), ((50, 2), "None"), ((59, 39), "None")],
    ids=["the smaller of two, and not the hidden one", "the larger", "last pixel inside", "first pixel outside", "nothing there"],
)
def test_click_on_boxes(place: tuple[int, int], expected: str) -> None:
    assert pick(BOXES, {"x": place[0], "y": place[1]}) == expected


def test_drawn_box_and_chip() -> None:
    assert pick(BOXES, {"box": [1, 2.5, 10, 20]}) == "box:1,2.5,10,20:dog"
    assert pick(SEGMENTS, {"target": "region:cat"}) == "region:cat"


@pytest.mark.parametrize(("unit", "expected"), [("pixel", "pixel:2,0"), ("segment", "region:dog"), ("class", "class:dog")])
def test_click_on_segments(unit: str, expected: str) -> None:
    assert pick(SEGMENTS, {"x": 2, "y": 0}, unit) == expected


def test_all_is_too_much_for_one_page() -> None:
    assert str(pointing.resolve("top", BOXES)) == "box:0"
    with pytest.raises(TargetError, match="stands for 3 explanations"):
        pointing.resolve("all", BOXES)
