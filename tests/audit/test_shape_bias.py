"""Shape bias: classifiers whose answers are known, and the dense form against its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.probes.toys import Shapes, reader
from xaitools.audit import probe
from xaitools.audit.records import from_table
from xaitools.data import load_dataset
from xaitools.types import Prediction, Sample

FEW = 32
"""Of the published stimuli, in their order: two shapes."""

KINDS = ("cat", "dog", "car", "clock")


class Stimuli:
    """Every pair of shape and texture; red says the shape, green the texture, as tenths."""

    task, classes, semantic_classes, things, name = "classification", KINDS, (), frozenset(), "stimuli"

    def __init__(self) -> None:
        self.pairs = [(shape, texture) for shape in range(len(KINDS)) for texture in range(len(KINDS))]
        self.ids = [f"{KINDS[shape]}-{KINDS[texture]}" for shape, texture in self.pairs]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        shape, texture = self.pairs[index]
        image = torch.tensor([shape / 10, texture / 10, 0.5]).view(3, 1, 1).expand(3, 8, 8).clone()
        return Sample(self.ids[index], image, label=shape, tags={"texture_class": KINDS[texture]})


class Scripted:
    """Answers as ``decide(shape, texture)`` says, in the words of ``classes``."""

    task, name = "classification", "scripted"

    def __init__(self, decide: Callable[[int, int], int], classes: tuple[str, ...] = KINDS) -> None:
        self.decide, self.classes = decide, classes

    def predict(self, images: Tensor) -> list[Prediction]:
        found = []
        for image in images:
            answer = self.decide(*(round(10 * float(image[channel, 0, 0])) for channel in (0, 1)))
            order = torch.tensor([answer, *(k for k in range(len(self.classes)) if k != answer)])
            scores = torch.linspace(1, 0, len(order))
            found.append(Prediction("classification", self.classes, (8, 8), order, scores))
        return found


def other(shape: int, texture: int) -> int:
    return next(k for k in range(len(KINDS)) if k not in (shape, texture))


def mixed(shape: int, texture: int) -> int:
    """By shape for cats, by something else for dogs, by texture for the rest."""
    return (shape, other(shape, texture), texture, texture)[shape]


@pytest.mark.parametrize(
    ("decide", "bias", "decided"),
    [(lambda shape, _: shape, 1, 1), (lambda _, texture: texture, 0, 1), (other, None, 0), (mixed, 1 / 3, 3 / 4)],
    ids=["shape", "texture", "other", "mixed"],
)
def test_scripted_classifiers_have_the_bias_that_they_were_given(decide, bias, decided):
    report = probe(Scripted(decide), Stimuli(), ["texture.cue_conflict"]).report
    row = report["probes"]["cue_conflict"]
    assert row["n"] == 12 and row["measure"] == "shape_bias"  # the four without conflict are left out
    assert row["primary"]["value"] == (None if bias is None else pytest.approx(bias)) == row["means"]["shape_bias"]["value"]
    assert row["means"]["decided"]["value"] == pytest.approx(decided)
    assert row["primary"]["drop"] is row["primary"]["ci"] is None
    assert f"{round(12 * decided)} of 12 answers" in row["notes"][-1]
    assert {each["reason"] for each in report["skipped"]} == {"no conflict: shape and texture are of one class"}
    if bias == pytest.approx(1 / 3):
        low, high = row["means"]["shape_bias"]["ci"]
        assert low < bias < high and 0.05 < high - low < 0.9


def test_a_classes_map_joins_classes_and_unknown_textures_are_left_out():
    names = ("animal", "car", "lamp")
    answers = {0: 0, 1: 0, 2: 1, 3: 2}
    model = Scripted(lambda _, texture: answers[texture], names)
    with_map = {"cat": "animal", "dog": "animal"}
    report = probe(model, Stimuli(), ["cue_conflict"], classes_map=with_map).report
    row = report["probes"]["cue_conflict"]
    assert row["n"] == 4 and row["primary"]["value"] == 0  # cat or dog against car, both ways
    assert any("does not know the class 'clock'" in each["reason"] for each in report["skipped"])


def test_other_data_has_no_stimuli():
    report = probe(reader("object"), Shapes(), ["cue_conflict", "grey"]).report
    assert "cue_conflict" not in report["probes"] and any("no pictures of shape against texture" in each for each in report["warnings"])


def test_the_dense_form_is_the_ratio_of_the_records():
    result = probe(reader("object"), Shapes(), ["cue_decomposition"], severities=(2, 3))
    row, rows = result.report["probes"]["cue_decomposition"], from_table(result.records)

    def mean_iou(name: str, severity: int) -> float:
        confusion = sum(row.statistics["confusion"] for row in rows if (row.condition, row.severity) == (name, severity)).reshape(3, 3)
        return float(np.mean([confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]) for k in range(3)]))

    for cell in row["severities"]:
        shape, texture = (mean_iou(name, cell["severity"]) for name in ("diffusion", "voronoi"))
        assert cell["value"] == pytest.approx(shape / (shape + texture))
    assert row["primary"]["value"] == row["severities"][1]["value"] and row["members"]["voronoi"]["value"] == pytest.approx(texture)
    assert set(row["means"]) == {"shape_bias", "shape", "texture"}
    low, high = row["means"]["shape_bias"]["ci"]
    assert low <= row["primary"]["value"] <= high


@pytest.mark.long
def test_on_the_published_stimuli_a_model_that_knows_the_answers_has_its_bias(data_root):
    dataset = load_dataset(f"cue-conflict:{data_root}/cue-conflict")
    index = {dataset[k].image.numpy().tobytes(): k for k in range(FEW)}

    class Knowing(Scripted):
        def predict(self, images: Tensor) -> list[Prediction]:
            found = []
            for image in images:
                k = index.get(image.numpy().tobytes())
                sample = dataset[0 if k is None else k]
                by_shape = sum(map(ord, sample.id)) % 4 > 0
                answer = sample.label if by_shape else dataset.classes.index(sample.tags["texture_class"])
                order = torch.tensor([answer, *(each for each in range(16) if each != answer)])
                found.append(Prediction("classification", dataset.classes, image.shape[-2:], order, torch.linspace(1, 0, 16)))
            return found

    row = probe(Knowing(other, dataset.classes), dataset, ["cue_conflict"], limit=FEW).report["probes"]["cue_conflict"]
    conflicts = [id for id in dataset.ids[:FEW] if id.partition("-")[0].rstrip("0123456789") != id.partition("-")[2].rstrip("0123456789")]
    expected = np.mean([sum(map(ord, id)) % 4 > 0 for id in conflicts])
    assert row["n"] == len(conflicts) == FEW - 2 and row["primary"]["value"] == pytest.approx(expected)
    assert row["means"]["decided"]["value"] == 1


def test_without_a_conflict_nothing_is_claimed():
    stimuli = Stimuli()
    stimuli.pairs, stimuli.ids = [(0, 0), (1, 1)], ["cat-cat", "dog-dog"]
    row = probe(Scripted(mixed), stimuli, ["cue_conflict"]).report["probes"]["cue_conflict"]
    assert row["n"] == 0 and row["primary"]["value"] is row["means"]["decided"]["value"] is row["means"]["shape_bias"]["ci"] is None
