import numpy as np
import pytest
import torch

from xaitools.audit.factory import Redrawn, Sized, reliance, table, verdict
from xaitools.data.scenes import FACTORS, TIED, Scenes
from xaitools.errors import DataError
from xaitools.types import Prediction

SCENES = Scenes("test", n=30, seed=3, size=48, others=0.5)


class Reader:
    """A classifier that knows the truth of images it has met, but for those whose ``tags`` it goes by."""

    task, classes, name = "classification", SCENES.classes, "reader"

    def __init__(self, datasets, answer):
        self.known = {sample.image.numpy().tobytes(): answer(sample) for dataset in datasets for sample in dataset}

    def predict(self, images):
        answers = [self.known[image.numpy().tobytes()] for image in images]
        logits = torch.nn.functional.one_hot(torch.tensor(answers), len(self.classes)).float()
        return [
            Prediction(task=self.task, classes=self.classes, image_size=(48, 48), labels=row.argsort(descending=True), scores=row)
            for row in logits
        ]


def items(dataset):
    return [dataset[index] for index in range(len(dataset))]


class Listed(Redrawn):
    def __iter__(self):
        return iter(items(self))


@pytest.mark.parametrize("factor", FACTORS)
def test_only_the_named_factor_differs_and_it_is_never_the_class_s_own_when_in_conflict(factor):
    own, other = (items(Redrawn(SCENES, factor, aligned)) for aligned in (True, False))
    for index, (one, two) in enumerate(zip(own, other, strict=True)):
        scene = SCENES.describe(index)
        kinds = [thing.kind for thing in scene.things] if factor in ("texture", "pose") else [scene.subject]
        values = [np.atleast_1d(each.tags[factor]).tolist() for each in (one, two)]
        if factor in ("tag", "cooccurrence"):
            assert values == [[scene.subject == TIED], [scene.subject != TIED]]
        else:
            assert values[0] == kinds
            assert all(value != kind for value, kind in zip(values[1], kinds, strict=True))
        rest = set(FACTORS) - {factor}
        assert {name: one.tags[name] for name in rest} == {name: two.tags[name] for name in rest}
        assert one.id == two.id and torch.equal(one.labels, two.labels)
        if factor != "pose":
            assert torch.equal(one.masks, two.masks)
            assert not torch.equal(one.image, two.image)
    values = {str(sample.tags[factor]) for sample in other}
    assert len(values) > 3 or factor in ("tag", "cooccurrence")


def test_an_unknown_factor_is_named():
    with pytest.raises(DataError, match="backgrund"):
        Redrawn(SCENES, "backgrund", True)


def test_a_model_that_goes_by_shape_relies_on_nothing_and_one_that_goes_by_the_background_on_it():
    sides = [Listed(SCENES, "background", aligned) for aligned in (True, False)]
    by_shape = reliance(Reader(sides, lambda sample: sample.label), *sides)
    assert (by_shape["drop"], by_shape["ci"], by_shape["truth"]) == (0, [0, 0], False)
    by_background = reliance(Reader(sides, lambda sample: sample.tags["background"]), *sides)
    assert (by_background["aligned"], by_background["conflicting"], by_background["truth"]) == (1, 0, True)


def test_reliance_is_the_difference_of_two_plain_accuracies():
    def answer(sample):
        return TIED if sample.tags["tag"] else (sample.label + int(sample.id[-1]) % 2) % 5

    sides = [Listed(SCENES, "tag", aligned) for aligned in (True, False)]
    model = Reader(sides, answer)
    found = reliance(model, *sides, batch_size=7)
    plain = [np.mean([answer(sample) == sample.label for sample in side]) for side in sides]
    assert (found["aligned"], found["conflicting"]) == (pytest.approx(plain[0]), pytest.approx(plain[1]))
    assert found["drop"] == pytest.approx(plain[0] - plain[1])
    assert found["ci"][0] < found["drop"] < found["ci"][1]
    for number, name in enumerate(SCENES.classes):  # recall is what a class has of accuracy
        mine = [[answer(sample) == number for sample in side if sample.label == number] for side in sides]
        assert found["per_class"][name] == pytest.approx(np.mean(mine[0]) - np.mean(mine[1]))
    assert found["n"] == 30 and table(model, sides[0]).metric() == pytest.approx(plain[0])
    of_class = reliance(model, *sides, label=SCENES.classes[TIED])
    assert of_class["drop"] == found["per_class"][SCENES.classes[TIED]] == of_class["aligned"] - of_class["conflicting"]
    assert of_class["ci"][0] < of_class["drop"] < of_class["ci"][1] and of_class["ci"] != found["ci"]


def test_other_items_are_refused():
    with pytest.raises(DataError, match="same items"):
        reliance(None, SCENES, Scenes("test", n=29, seed=3, size=48))


def test_the_middle_is_neither_yes_nor_no():
    assert [verdict(ci) for ci in ([0.11, 0.5], [0.1, 0.5], [0.04, 0.06], [0.01, 0.04], [-0.3, 0.09], [-0.3, 0.1], None)] == [
        True, None, None, False, False, None, None,
    ]  # fmt: skip


def test_size_belongs_to_the_class():
    plain, sized, turned = (
        Scenes("test", n=40, size=64, others=0),
        Sized("test", n=40, size=64, others=0),
        Sized("test", n=40, size=64, others=0, turn=2),
    )
    share = {kind: [] for kind in range(5)}
    for index in range(40):
        (one, two, three) = (each.describe(index).things for each in (plain, sized, turned))
        share[one[0].kind].append(two[0].radius / one[0].radius)
        assert three[0].radius / one[0].radius == pytest.approx([1.0, 0.88, 0.77, 0.67, 0.58][(one[0].kind + 2) % 5])
    assert [set(np.round(share[kind], 6)) for kind in range(5)] == [{1.0}, {0.88}, {0.77}, {0.67}, {0.58}]
    assert len({plain.name, sized.name, turned.name}) == 3
