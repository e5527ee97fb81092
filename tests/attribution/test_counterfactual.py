"""Whole objects taken out: falls that are closed forms, what is itself, and what stays as it is."""

from __future__ import annotations

import json

import pytest
import torch

import xaitools as xt
from tests.company import GROUND, Company, classifier, detector, lean, segmenter
from xaitools.attribution import METHODS
from xaitools.cli import main
from xaitools.data.fill import fill
from xaitools.data.present import annotated
from xaitools.errors import MethodError
from xaitools.types import IGNORE, Sample


def falls(attribution: xt.Attribution) -> dict[str, dict[str, object]]:
    return {row["object"]: row for row in attribution.params["falls"]}


CASES = [
    (segmenter(), "region:red", {}), (segmenter(), "pixel:{x},{y}:red", {}),
    (detector(), "box:0", {}), (detector(), "box:0", {"score": "logit"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "target", "given", "annotation"),
    [(*case, annotation) for case in CASES for annotation in (True, False)] + [(segmenter(), "region:gt:red", {}, True)],
)
def test_the_fall_is_what_the_model_leans_on(model, target, given, annotation):
    data = Company()
    sample, masks = data[0], data.masks(0)  # red and green
    x, y = (int(each[0]) for each in torch.where(masks["red"])[::-1])
    target = target.format(x=x, y=y)
    known = {"sample": sample, "data": data} if annotation else {}
    attribution = xt.explain(model, sample.image, target, "counterfactual", **known, **given)
    found, expected = falls(attribution), lean(int(masks["green"].sum()))
    green = next(name for name in found if name.startswith("green"))
    red = next(name for name in found if name.startswith("red"))
    assert attribution.params["objects"] == ("annotated" if annotation else "predicted")
    assert found[green]["fall"] == pytest.approx(expected, rel=1e-4) and not found[green]["itself"]
    assert found["background"]["fall"] == pytest.approx(0, abs=1e-5) and not found["background"]["itself"]
    assert found[red]["itself"] and found[red]["covers"] == pytest.approx(1, abs=1e-6) and found[red]["fall"] > 2
    assert torch.allclose(attribution.values[masks["green"]].double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4)
    assert attribution.values[~(masks["green"] | masks["red"])].abs().max() < 1e-5
    assert any("the target itself" in note for note in attribution.notes) and any(green in note for note in attribution.notes)


def test_an_object_that_is_not_looked_at_is_exactly_zero():
    data = Company()
    sample = data[1]  # red and blue
    (red, blue) = xt.explain_many(segmenter(), sample.image, ["region:red", "region:blue"], "counterfactual", sample=sample, data=data)
    assert falls(red)["blue 1"]["fall"] == 0 and falls(blue)["red 0"]["fall"] == 0
    assert bool((red.values[data.masks(1)["blue"]] == 0).all())


def test_a_black_box_says_whether_it_still_finds_it():
    data = Company()
    sample, area = data[0], int(data.masks(0)["green"].sum())
    attribution = xt.explain(detector(final=True), sample.image, "box:0", "counterfactual", sample=sample, data=data)
    with_green, without_green = (float(torch.tensor(1.0 + each).sigmoid()) for each in (lean(area), 0.0))
    assert attribution.params["score"] == "still found" and attribution.score == pytest.approx(with_green, rel=1e-4)
    assert falls(attribution)["green 1"]["fall"] == pytest.approx(with_green - without_green, rel=1e-3)
    same = xt.explain(detector(), sample.image, "box:0", "counterfactual", sample=sample, data=data, score="found")
    assert falls(same)["green 1"]["fall"] == pytest.approx(falls(attribution)["green 1"]["fall"], rel=1e-5)
    with pytest.raises(MethodError, match="black box"):
        xt.explain(detector(final=True), sample.image, "box:0", "counterfactual", score="logit")
    with pytest.raises(MethodError, match="drop the rest"):
        xt.explain(detector(), sample.image, "box:0:left", "counterfactual", score="found")


def test_a_classifier_needs_annotated_objects():
    data = Company()
    sample = data[0]
    attribution = xt.explain(classifier(), sample.image, "class:red", "counterfactual", sample=sample, data=data)
    found = falls(attribution)
    assert found["green 1"]["fall"] == pytest.approx(lean(int(data.masks(0)["green"].sum())), rel=1e-4)
    assert found["red 0"]["itself"] and not found["green 1"]["itself"] and found["red 0"]["covers"] is None
    with pytest.raises(MethodError, match="no annotated ones; give a dataset") as caught:
        xt.explain(classifier(), sample.image, "class:red", "counterfactual")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"score": "loud"}, {"background": "purple"}, {"most": 0}, {"batch_size": 0}])
def test_a_wrong_parameter_is_one_line(given):
    with pytest.raises(MethodError) as caught:
        xt.explain(segmenter(), Company()[0].image, "region:red", "counterfactual", **given)
    assert "\n" not in str(caught.value) and any(word in str(caught.value) for word in ("expected", "at least"))


def test_what_the_call_fills_in_is_no_parameter():
    assert set(METHODS["counterfactual"].defaults) == {"score", "background", "most", "batch_size"}
    params = xt.explain(segmenter(), Company()[0].image, "region:red", "counterfactual").params
    assert not {"sample", "data", "truth_classes", "progress"} & set(params)


def test_the_largest_are_taken_out_where_there_are_too_many():
    data = Company(30)
    areas = [{kind: int(mask.sum()) for kind, mask in data.masks(index).items()} for index in range(len(data))]
    index = next(index for index, each in enumerate(areas) if each.get("green", 0) > each["red"])
    sample = data[index]
    whole = xt.explain(segmenter(), sample.image, "region:red", "counterfactual", sample=sample, data=data)
    one = xt.explain(segmenter(), sample.image, "region:red", "counterfactual", sample=sample, data=data, most=1)
    assert set(falls(whole)) == {"red 0", "green 1", "background"} and set(falls(one)) == {"green 1", "background"}
    assert any("1 more object" in note for note in one.notes)
    assert bool((one.values[data.masks(index)["red"]] == 0).all())


def test_background_can_become_something_else():
    data = Company()
    sample = data[0]
    given = {"sample": sample, "data": data}
    area = int((~torch.stack(list(data.masks(0).values())).any(0)).sum())
    white = xt.explain(segmenter(), sample.image, "region:red", "counterfactual", background="0.75", **given)
    assert falls(white)["background"]["fall"] == pytest.approx(-lean(area) * (0.75 - GROUND) / 0.4, rel=1e-3)


def test_painting_keeps_other_objects_and_does_not_copy_them():
    image = torch.full((3, 40, 60), 0.5)
    other, hole = torch.zeros(40, 60, dtype=torch.bool), torch.zeros(40, 60, dtype=torch.bool)
    other[5:35, 8:30], hole[10:25, 30:45] = True, True
    image[:, other] = 0.9
    image[:, hole] = 0.1
    painted = fill(image, hole, other)
    assert torch.equal(painted[:, other], image[:, other])
    assert float((painted[:, hole] - 0.5).abs().max()) < 0.05, "grey, not the bright neighbour"
    assert float((fill(image, hole)[:, hole] - 0.5).abs().max()) > 0.05, "without keep it is drawn to the neighbour"
    crowded = fill(image, hole, ~hole)  # nothing is free: neighbours are copied from, and still stay as they are
    assert torch.equal(crowded[:, ~hole], image[:, ~hole])
    assert float((crowded[:, hole] - 0.5).abs().median()) < 0.05 and abs(float(image.mean()) - 0.5) > 0.05


def test_what_is_in_an_annotated_image():
    semantic = torch.zeros(12, 20, dtype=torch.int64)
    semantic[6:], semantic[2:5, 2:5], semantic[2:5, 10:14], semantic[0, 0] = 1, 2, 2, IGNORE
    sample = Sample("a", torch.zeros(3, 12, 20), semantic=semantic)
    classes = ("sky", "road", "car")
    contents = annotated(sample, (), classes, {"car"})
    assert [(part.name, part.kind, part.thing) for part in contents.parts] == [
        ("car 0", "car", True), ("car 1", "car", True), ("sky", "sky", False), ("road", "road", False),
    ]  # fmt: skip
    assert torch.equal(contents.background, semantic != 2)
    unknown = annotated(sample, (), classes)
    assert [part.name for part in unknown.parts] == ["sky", "road", "car"] and int(unknown.background.sum()) == 1
    assert annotated(Sample("b", sample.image, label=0), classes, (), frozenset()) is None
    boxes = annotated(Sample("c", sample.image, boxes=torch.tensor([[1.0, 2, 3.5, 4]])), classes)
    assert boxes.parts[0].name == "object 0" and int(boxes.parts[0].mask.sum()) == 6


def test_the_command_names_the_objects_of_a_dataset(capsys, tmp_path):
    arguments = ["explain", "scenes:test?n=4", "--model", "unet-scenes", "--method", "counterfactual", "--limit", "1", "--json"]
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--out", str(tmp_path / "o"), "--quiet"])
    assert status.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)["explanations"]
    data = xt.load_dataset("scenes:test?n=4")
    names = {f"{data.classes[label]} {number}" for number, label in enumerate(data[0].labels.tolist())}
    assert {each["object"] for each in row["params"]["falls"]} == names | {"background"}
    assert row["params"]["objects"] == "annotated"
