"""What went wrong in an image, against answers that are known by construction."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from xaitools.metrics.confusion import Confusion
from xaitools.metrics.mistakes import ERRORS, Event, events
from xaitools.types import IGNORE, Prediction, Sample

CLASSES = ("nothing", "cat", "dog")


def test_boxes_by_hand(make_boxed):
    truth = [(0, 0, 0, 10, 10), (1, 20, 0, 60, 40), (2, 100, 0, 200, 100), (0, 60, 0, 70, 10)]
    found = [
        (0, 0.99, 0, 0, 10, 10),  # right
        (0, 0.98, 0, 0, 10, 9),  # a duplicate is neither of the three
        (0, 0.96, 100, 0, 200, 100),  # on the large eel: wrong class
        (2, 0.94, 0, 140, 33, 173),  # on nothing, 33 x 33 pixels
        (2, 0.2, 0, 40, 10, 50),  # too weak
    ]
    said = events(*make_boxed(truth, found))
    assert said[:4] == (
        Event("found", "cat", "small"), Event("missed", "dog", "medium"), Event("missed", "eel", "large"), Event("missed", "cat", "small"),
    )  # fmt: skip
    assert said[4:] == (Event("wrong class", "cat", "large"), Event("false alarm", "eel", "medium"))


def test_boxes_are_counted_as_in_the_confusion(make_random_boxes):
    dice = np.random.default_rng(4)
    for _ in range(40):
        pair = make_random_boxes(dice, "a")
        confusion, counts = Confusion(("cat", "dog", "eel")), Counter(each.what for each in events(*pair))
        confusion.add(*pair)
        found = confusion.document(np.ones((1, 1)))
        assert counts["missed"] == found["missed"]["all"] and counts["found"] == found["truths"] - found["missed"]["all"]
        assert counts["false alarm"] == found["kinds"]["background"]
        assert counts["wrong class"] == found["kinds"]["wrong_class"] + found["kinds"]["both_wrong"]


def segmented(truth, guess, background=0):
    truth, guess = torch.tensor(truth), torch.tensor(guess)
    prediction = Prediction(
        "segmentation", CLASSES, tuple(guess.shape), torch.arange(3), torch.ones(3), semantic=guess, background=background
    )
    return Sample("a", torch.zeros(3, *guess.shape), semantic=truth), prediction


@pytest.mark.parametrize(
    ("truth", "guess", "expected"),
    [
        ([[1, 1, 1, 0]], [[1, 1, 0, 0]], [("found", "cat")]),
        ([[1, 1, 1, 0]], [[0, 0, 1, 0]], [("missed", "cat")]),
        ([[1, 1, 1, 0]], [[2, 2, 1, 0]], [("wrong class", "cat")]),
        ([[0, 0, 0, 0]], [[2, 0, 0, 0]], [("false alarm", "dog")]),
        ([[IGNORE, 0, 0, 0]], [[2, 0, 0, 0]], []),
        ([[1, 1, 2, 2]], [[1, 2, 2, 2]], [("found", "cat"), ("found", "dog")]),
    ],
    ids=["mostly found", "mostly background", "mostly another class", "on background", "unlabelled", "two classes"],
)
def test_segments_by_hand(truth, guess, expected):
    said = events(*segmented(truth, guess))
    assert [(each.what, each.name) for each in said] == expected and {each.size for each in said} <= {"small"}


def test_without_a_background_there_are_only_wrong_classes():
    assert [each.what for each in events(*segmented([[1, 1, 0]], [[0, 0, 2]], background=None))] == ["wrong class", "wrong class"]


def test_an_image_is_found_or_of_the_wrong_class():
    prediction = Prediction("classification", CLASSES, (4, 4), torch.tensor([2, 1, 0]), torch.tensor([0.7, 0.2, 0.1]))
    for label, expected in ((2, "found"), (1, "wrong class")):
        [event] = events(Sample("a", torch.zeros(3, 4, 4), label=label), prediction)
        assert event == Event(expected, CLASSES[label], "") and (expected == "found" or expected in ERRORS)
    assert events(Sample("a", torch.zeros(3, 4, 4)), prediction) == ()
