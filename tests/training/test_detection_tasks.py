"""Detectors from recipes: YOLO with its own loss, Mask R-CNN with torchvision's; parts of images; data without a val."""

import re
import tomllib

import pytest
import torch

from tests.nets import picture, settled
from xaitools import evaluate, explain_many, load_dataset, load_model, zoo
from xaitools.errors import ModelError
from xaitools.training import run_recipe
from xaitools.training.detection import augment, cropped, held_out
from xaitools.training.one_shot import _fitted, _joined, _kept

YOLO = """
name = "tiny"
architecture = "yolo"
task = "detection"
network = { widths = [[6], [8, 12], [16]], anchors = [[20, 20], [40, 40]] }
[data]
train = "scenes:train?n=32&size=48"
val = "scenes:val?n=8&size=48"
test = "scenes:test?n=8&size=48"
licence = "none"
redistribution = "free"
[input]
size = [64, 56]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
background = "none"
[training]
epochs = 6
batch_size = 8
lr = 1e-2
average = 0.9
crop = 0.8
validate_every = 3
"""
V1 = YOLO.replace('"yolo"', '"yolo-v1"').replace(", anchors = [[20, 20], [40, 40]]", ", boxes = 2")
MASKS = """
name = "tiny"
architecture = "mask-rcnn"
task = "instances"
network = { side = 48, longest = 48, anchors = [12, 24], ratios = [1.0], widths = [6, 8, 8], level = 1, out_channels = 8, hidden = 16, pool = 3, proposals = 20, detections = 10, mask_widths = [8, 8], mask_pool = 5 }
[data]
train = "scenes:train?n=24&size=48"
val = "scenes:train?n=24&size=48"
test = "scenes:test?n=8&size=48"
hold_out = 4
licence = "none"
redistribution = "free"
[input]
[training]
epochs = 4
batch_size = 6
lr = 5e-3
average = 0.9
crop = 0.8
validate_every = 2
"""  # noqa: E501
RECIPES = {"yolo": YOLO, "yolo-v1": V1, "mask-rcnn": MASKS}


@pytest.fixture
def run(tmp_path):
    def call(text: str, name: str = "tiny", **options):
        (tmp_path / "recipe.toml").write_text(text)
        said: list[str] = []
        return run_recipe(tmp_path / "recipe.toml", tmp_path / "models" / name, say=options.pop("say", said.append), **options), said

    return call


def losses(said):
    return [float(found[1]) for line in said if (found := re.search(r"loss ([\d.]+)", line))]


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls_and_the_file_gives_the_score_of_its_card(run, tmp_path, monkeypatch, name):
    card, said = run(RECIPES[name])
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tmp_path / name)
    assert losses(said)[-1] < 0.8 * losses(said)[0]
    assert card["classes"] == ["arrow", "drop", "fish", "heart", "moon"] and card["scores"]["test"]["metric"] == "mAP50"
    assert ("mask_mAP50" in card["scores"]["test"]) == (name == "mask-rcnn")
    model, data = load_model("tiny"), load_dataset(card["data"]["test"])
    assert model.task == card["task"] and type(model).__name__ == ("InstanceModel" if name == "mask-rcnn" else "PlainDetector")
    found = evaluate(model, data, replicates=0)
    assert found["value"] == pytest.approx(card["scores"]["test"]["value"], abs=1e-4)
    if name == "mask-rcnn":
        assert card["scores"]["val"]["n"] == 6 and "18 training images" in said


def test_mask_rcnn_is_the_two_stage_network_with_one_head_more_and_is_explained():
    """With random weights, drawn so that no head is silent: a box and a mask each have their map, and the ledgers close."""
    facts = tomllib.loads(MASKS) | {"classes": ["disc", "square"]}
    model = zoo.adapt(settled(zoo.build(facts), seed=6), facts, name="masks", dtype="float64", score_threshold=0.01)
    options = {key: value for key, value in facts["network"].items() if not key.startswith("mask")}
    boxes = zoo.build({"architecture": "faster-rcnn", "classes": facts["classes"], "network": options}).state_dict()
    state = model.module.state_dict()
    assert {key: value.shape for key, value in state.items() if ".mask_" not in key} == {key: value.shape for key, value in boxes.items()}
    assert len(state) > len(boxes)
    image = picture(45, 61).double()
    prediction = model.predict(image[None])[0]
    assert prediction.masks is not None and prediction.masks.shape[1:] == (45, 61) and prediction.cells.shape[1:] == (10, 10)
    mask = [bool(cells.any()) for cells in prediction.cells].index(True)
    maps = explain_many(model, image, ["box:0", f"mask:{mask}"], "lrp")
    for each in maps:
        gap = each.score - float(each.values.double().sum()) - sum(amount for _, amount in each.ledger)
        assert abs(gap) < 1e-5 * max(1.0, abs(each.score)) and float(each.values.abs().sum()) > 0
    assert not torch.allclose(maps[0].values, maps[1].values)


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_recipe_gives_the_same_bytes_also_when_it_is_cut_short(run, tmp_path, name):
    text = RECIPES[name]
    run(text, name="whole")

    class Cut(Exception): ...

    def stop(line: str) -> None:
        if line.startswith("epoch 3/"):
            raise Cut

    with pytest.raises(Cut):
        run(text, name="parts", say=stop)
    _, said = run(text, name="parts", resume=True)
    assert "goes on after epoch" in " ".join(said)
    one, other = ((tmp_path / "models" / each / "weights.safetensors").read_bytes() for each in ("whole", "parts"))
    same = one == other  # compared by pytest, long bytes would be shown as a difference for minutes
    assert same


def objects(height=40, width=60):
    """A bright rectangle, its mask, and a box that says where it is; a second one in the corner."""
    image, masks = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 10:20, 30:50] = 1
    masks[1, 0:8, 0:6] = 1
    image[:, masks.any(0).bool()] = 200
    return image, {"boxes": torch.tensor([[30.0, 10, 50, 20], [0, 0, 6, 8]]), "labels": torch.tensor([3, 1]), "masks": masks}


def extent(mask):
    rows, columns = torch.where(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_a_part_of_an_image_takes_its_objects_along():
    part, target = cropped(*objects(), 5, 20, 12, 25)
    assert part.shape == (3, 12, 25) and target["labels"].tolist() == [3]  # the corner is out of view
    assert target["boxes"].tolist() == [[10.0, 5.0, 25.0, 12.0]] == [[float(v) for v in extent(target["masks"][0])]]
    _, target = cropped(*objects(), 0, 45, 40, 15)  # a quarter of the rectangle is left
    assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"]) == 0


@pytest.mark.parametrize("seed", range(6))
def test_boxes_and_masks_stay_with_the_picture(seed):
    settings = {"crop": 0.6, "mirror": True, "upside_down": True, "colour": 0.3}
    picture, target = augment(*objects(), settings, torch.Generator().manual_seed(seed))
    for box, mask in zip(target["boxes"], target["masks"], strict=True):
        assert box.tolist() == extent(mask)
        inside = torch.zeros(mask.shape, dtype=torch.bool)
        x1, y1, x2, y2 = box.int().tolist()
        inside[y1:y2, x1:x2] = True
        assert float(picture[:, inside].mean()) > 2 * float(picture[:, ~target["masks"].any(0).bool()].mean())


def test_without_a_crop_nothing_is_drawn_for_it():
    """The recipes that came before crops give the bytes they gave."""
    one, other = (augment(*objects(), settings, torch.Generator().manual_seed(0))[0] for settings in ({}, {"crop": 1.0}))
    assert torch.equal(one, other)


def test_boxes_are_scaled_with_the_image_and_know_their_owner():
    picture, target = _fitted(torch.rand(3, 40, 60), objects()[1], (80, 30))
    assert picture.shape == (3, 80, 30) and target["boxes"][0].tolist() == [15.0, 20.0, 25.0, 40.0]
    assert _kept(*objects(), (100, 45))[0].shape == (3, 40, 45)  # never enlarged
    nothing = (picture, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)})
    images, owners, boxes, labels = _joined([(picture, target), nothing, (picture, target)])
    assert images.shape == (3, 3, 80, 30) and owners.tolist() == [0, 0, 2, 2] and len(boxes) == 4 and labels.tolist() == [2, 0, 2, 0]


def test_what_is_held_out_is_not_trained_on():
    data = load_dataset("scenes:train?n=10")
    parts = held_out(data, 4)
    assert parts["val"].ids == [data.ids[index] for index in (0, 4, 8)]
    assert sorted([*parts["train"].ids, *parts["val"].ids]) == sorted(data.ids)
    assert torch.equal(parts["val"][1].image, data[4].image) and len(parts["train"]) == 7


PRETRAINED = """
name = "tiny"
architecture = "rcnn"
task = "detection"
network = { side = 48, longest = 48 }
[data]
train = "scenes:train?n=8&size=48"
val = "scenes:val?n=4&size=48"
test = "scenes:test?n=4&size=48"
licence = "none"
redistribution = "free"
[input]
[training]
pretrained = "alexnet-scenes"
epochs = 1
batch_size = 8
lr = 0.0
average = 0.0
"""


def test_an_rcnn_begins_with_the_layers_of_a_classifier(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(PRETRAINED)
    run_recipe(recipe, tmp_path / "out", say=lambda _: None)
    mine, theirs = zoo.read_weights(tmp_path / "out" / "weights.safetensors"), load_model("alexnet-scenes").module.state_dict()
    for key in ("features.0.weight", "features.11.weight"):
        torch.testing.assert_close(mine[f"roi_heads.box_head.0.{key.removeprefix('features.')}"], theirs[key])
    torch.testing.assert_close(mine["roi_heads.box_predictor.features.3.weight"], theirs["classifier.3.weight"])


@pytest.mark.parametrize(("old", "new", "said"), [
    ('"alexnet-scenes"', '"vgg-scenes"', "expected an rcnn"), ("side = 48", "divide = 12, side = 48", "other widths"),
])  # fmt: skip
def test_a_classifier_that_does_not_fit_is_one_line(old, new, said, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(PRETRAINED.replace(old, new))
    with pytest.raises(ModelError, match=said):
        run_recipe(recipe, tmp_path / "out", say=lambda _: None)
