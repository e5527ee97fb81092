"""Models of which only final answers, or only boxes and logits, are known."""

import pytest
import torch
from torch import nn

import xaitools as xt
from tests.nets import picture
from xaitools.errors import MethodError, ModelError, TargetError, XaiError
from xaitools.types import Prediction, Sample


class Lamp(nn.Module):
    """Reports one box, in pixels of its input, with the brightness of the red channel inside as the score."""

    def __init__(self, box=(8, 4, 20, 16), label=1, extra=()):
        super().__init__()
        self.box, self.label, self.extra = box, label, extra

    def forward(self, x):
        x1, y1, x2, y2 = self.box
        rows = []
        for image in x:
            row = {
                "boxes": torch.tensor([self.box, (0, 0, 5, 5)]).float(),
                "labels": torch.tensor([self.label, 2]),
                "scores": torch.stack([image[0, y1:y2, x1:x2].mean(), torch.tensor(0.3)]),
            }
            if "masks" in self.extra:
                row["masks"] = torch.zeros(2, 1, *x.shape[-2:])
                row["masks"][0, 0, y1:y2, x1:x2] = 1
            rows.append(row)
        return rows


def lamp_image(height=24, width=32):
    image = torch.full((3, height, width), 0.2)
    image[:, 4:16, 8:20] = 0.9
    return image


def test_a_black_box_is_occluded_where_its_box_lies():
    model = xt.wrap(Lamp(), task="detection", classes=["lamp", "other"])
    image = lamp_image()
    attribution = xt.explain(model, image, "box:0", "occlusion-drise", window=4, stride=2)
    assert attribution.score == pytest.approx(0.9, abs=1e-5)
    inside = torch.zeros(24, 32, dtype=torch.bool)
    inside[2:18, 6:22] = True  # windows that touch the box
    assert bool((attribution.values[~inside] == 0).all()) and float(attribution.values[inside].min()) >= 0
    assert float(attribution.values[10, 14]) > 0
    # one window inside the box, alone: the brightness falls by its share of the area
    single = xt.explain(model, image, "box:0", "occlusion-drise", window=4, stride=4, fill="0")
    assert float(single.values[6, 10]) == pytest.approx(0.9 * 16 / 144, rel=1e-4)


def test_a_black_box_refuses_what_needs_logits_in_one_line():
    model = xt.wrap(Lamp(), task="detection", classes=["lamp", "other"], name="lamps")
    for method in ("saliency", "lrp", "occlusion"):
        with pytest.raises(MethodError, match="lamps is a black box.*occlusion-drise"):
            xt.explain(model, lamp_image(), "box:0", method)
    with pytest.raises(MethodError, match="drop the rest"):
        xt.explain(model, lamp_image(), "box:0:left", "occlusion-drise")
    with pytest.raises(MethodError, match="black box"):
        model.loss(lamp_image()[None], [Sample("a", lamp_image())])


def test_boxes_come_back_in_pixels_of_the_image():
    model = xt.wrap(Lamp(), task="detection", classes=["lamp", "other"], size=(24, 32), score_threshold=0.0)
    prediction = model.predict(picture(48, 96)[None])[0]
    assert sorted(map(tuple, prediction.boxes.tolist())) == [(0, 0, 15, 10), (24, 8, 60, 32)]


@pytest.mark.parametrize(("background", "classes", "label", "expected"), [
    ("first", ["lamp", "other"], 1, "lamp"), ("none", ["none", "lamp", "other"], 1, "lamp"), ("last", ["a", "lamp", "other"], 1, "lamp"),
    ("first", ["background", "lamp", "other"], 1, "lamp"),
])  # fmt: skip
def test_which_label_means_nothing(background, classes, label, expected):
    model = xt.wrap(Lamp(label=label), task="detection", classes=classes, background=background)
    prediction = model.predict(lamp_image()[None])[0]
    assert prediction.classes[int(prediction.labels[0])] == expected
    with pytest.raises(ModelError, match="labels 1 to 2; expected"):
        xt.wrap(Lamp(), task="detection", classes=["lamp"]).predict(lamp_image()[None])


def test_instances_of_a_black_box_have_masks_and_no_logits():
    model = xt.wrap(Lamp(extra=["masks"]), task="instances", classes=["lamp", "other"])
    prediction = model.predict(lamp_image()[None])[0]
    assert prediction.masks[0].sum() == 144 and prediction.masks.dtype == torch.bool
    with pytest.raises(TargetError, match="not the logits behind them; take box:0"):
        xt.explain(model, lamp_image(), "mask:0", "occlusion-drise")
    with pytest.raises(ModelError, match="masks are NoneType"):
        xt.wrap(Lamp(), task="instances", classes=["lamp", "other"]).predict(lamp_image()[None])


def test_a_class_map_can_be_occluded():
    class Threshold(nn.Module):
        def forward(self, x):
            return (nn.functional.avg_pool2d(x, 2)[:, 0] > 0.5).long()

    model = xt.wrap(Threshold(), task="segmentation", classes=["dark", "bright"])
    image = lamp_image()
    prediction = model.predict(image[None])[0]
    assert prediction.semantic.shape == (24, 32) and int(prediction.semantic.sum()) == 144
    values = xt.explain(model, image, "region:bright", "occlusion-drise", window=4, stride=4, fill="0").values
    assert float(values[6, 10]) == pytest.approx(16 / 144) and float(values[:4].abs().max()) == 0
    with pytest.raises(MethodError, match="black box"):
        xt.explain(model, image, "region:bright", "saliency")


class Dense(nn.Module):
    """A YOLO-like head: four anchors, box corners and logits linear in the mean colours of the quarters."""

    def __init__(self, outputs=2, objectness=True):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, outputs, generator=generator))
        self.objectness = objectness

    def forward(self, x):
        means = nn.functional.adaptive_avg_pool2d(x, 2).flatten(2).transpose(1, 2)  # (N, 4, 3)
        height, width = x.shape[-2:]
        corners = torch.tensor([(0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5)]).to(x) * torch.tensor([width, height]).to(x)
        boxes = torch.cat([corners, corners + torch.tensor([width / 2, height / 2]).to(x)], 1)
        out = {"boxes": boxes + means.mean(-1, keepdim=True), "logits": 3 * means @ self.weight}
        return out | ({"objectness": means[..., 0]} if self.objectness else {})


@pytest.mark.parametrize(("background", "classes"), [("none", ["a", "b"]), ("first", ["a"]), ("last", ["b"])])
def test_a_dense_head_leads_from_each_box_to_its_logit(background, classes):
    model = xt.wrap(Dense().double(), task="detection", classes=classes, background=background, size=(16, 16), score_threshold=0.0)
    image = picture(24, 40).double()
    prediction = model.predict(image[None])[0]
    with torch.no_grad():
        raw = model.module(model.fit(model.normalise(image[None])))
    outputs = raw["logits"][0]
    chances = outputs.sigmoid() if background == "none" else outputs.softmax(-1)
    first = int(background == "first")
    for index, (label, anchor) in enumerate(zip(prediction.labels.tolist(), prediction.anchors.tolist(), strict=True)):
        expected = chances[anchor, label + first] * raw["objectness"][0, anchor].sigmoid()
        assert float(prediction.scores[index]) == pytest.approx(float(expected), rel=1e-6)
        assert prediction.boxes[index, 2] == pytest.approx(float(raw["boxes"][0, anchor, 2].clamp(max=16)) * 40 / 16, rel=1e-5)
        logit = xt.explain(model, image, f"box:{index}", "saliency")
        assert logit.score == pytest.approx(float(outputs[anchor, label + first]), rel=1e-9)
        # relevance lies in the quarter of the anchor alone
        row, column = divmod(anchor, 2)
        quarter = logit.values[12 * row : 12 * row + 12, 20 * column : 20 * column + 20]
        assert float(quarter.sum()) > 0.8 * float(logit.values.sum())  # the resizing filter reaches a little further


def test_an_edge_of_a_dense_box_is_its_coordinate_in_the_image():
    model = xt.wrap(Dense(), task="detection", classes=["a", "b"], background="none", size=(16, 16), score_threshold=0.0)
    image = picture(24, 40)
    box = model.predict(image[None])[0].boxes[0]
    for place, edge in enumerate(("left", "top", "right", "bottom")):
        score = xt.explain(model, image, f"box:0:{edge}", "saliency").score
        assert score == pytest.approx(float(box[place]), abs=0.5 + 24 / 16) and score >= float(box[place]) - 1e-4


def test_a_missed_box_finds_the_candidate_nearest_to_it():
    model = xt.wrap(Dense(), task="detection", classes=["a", "b"], background="none", score_threshold=0.99)
    image = picture(24, 40)
    assert not len(model.predict(image[None])[0].labels)
    values = xt.explain(model, image, "box:21,13,39,23:b", "gradient-x-input").values
    assert float(values[12:, 20:].abs().sum()) == pytest.approx(float(values.abs().sum()))


@pytest.mark.parametrize(("out", "error"), [
    (torch.zeros(1, 5), "returned Tensor; expected a dict"), ({"pred": 1}, "returned dict with pred; expected a dict"),
    ({"boxes": torch.zeros(1, 4, 5), "logits": torch.zeros(1, 4, 2)}, "boxes are"),
    ({"boxes": torch.zeros(1, 4, 4), "logits": torch.zeros(1, 4, 3)}, "logits are.*say background=none|logits are.*one a class"),
    ([{"boxes": torch.zeros(2, 4), "labels": torch.zeros(2)}], "without scores"),
    ([{"boxes": torch.zeros(2, 4), "labels": torch.zeros(1), "scores": torch.zeros(2)}], r"expected \(D, 4\)"),
])  # fmt: skip
def test_an_answer_of_another_form_is_one_line(out, error):
    class Odd(nn.Module):
        def forward(self, x):
            return out

    with pytest.raises(ModelError, match=error) as caught:
        xt.wrap(Odd(), task="detection", classes=["a", "b"], background="none").predict(picture()[None])
    assert "\n" not in str(caught.value)


class Own:
    """A user's object: brightness of the left half against the right half."""

    task, classes = "classification", ["left", "right"]

    def logits(self, images):
        half = images.shape[-1] // 2
        return torch.stack([images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))], 1)

    def predict(self, images):
        scores, labels = self.logits(images).softmax(1).sort(dim=1, descending=True)
        size = tuple(images.shape[-2:])
        return [Prediction(self.task, tuple(self.classes), size, label, score) for label, score in zip(labels, scores, strict=True)]


class OwnWithScores(Own):
    def scores(self, images, decisions):
        return torch.stack([row[decision.class_index] for row, decision in zip(self.logits(images), decisions, strict=True)])


def test_an_object_of_the_users_own_is_a_model():
    image = picture(8, 12)
    with pytest.raises(MethodError, match="Own is a black box"):
        xt.explain(Own(), image, "top", "saliency")
    map_ = xt.explain(Own(), image, "class:left", "occlusion-drise", window=4, stride=4, fill="0").values
    assert float(map_[:, :6].mean()) > 0 > float(map_[:, 6:].mean())
    values = xt.explain(OwnWithScores(), image, "class:left", "saliency").values
    assert torch.allclose(values[:, :6], torch.full((8, 6), 1 / (3 * 8 * 6))) and float(values[:, 6:].abs().max()) == 0
    occluded = xt.explain(OwnWithScores(), image, "class:left", "occlusion", window=4, stride=4, fill="0").values
    assert float(occluded[:, :4].min()) > 0 == float(occluded[:, 8:].abs().max())


def test_check_model_says_what_is_missing():
    assert xt.check_model(OwnWithScores()) == []
    assert xt.check_model(xt.wrap(Dense(), task="detection", classes=["a", "b"], background="none")) == []
    for model in (Own(), xt.wrap(Lamp(), task="detection", classes=["a", "b"])):
        assert "black box" in xt.check_model(model)[0]
    assert "expected a task of" in xt.check_model(object())[0]

    class Upside(Own):
        def predict(self, images):
            return [Prediction("classification", ("left",), (3, 3), torch.tensor([0, 7]), torch.tensor([0.5, 2.0])) for _ in images]

    lines = xt.check_model(Upside())
    assert any("image_size" in line for line in lines) and any("outside [0, 1]" in line for line in lines)
    assert any("labels outside" in line for line in lines) and any("classes" in line for line in lines)

    class Detached(OwnWithScores):
        def scores(self, images, decisions):
            return super().scores(images, decisions).detach()

    assert "no gradient" in xt.check_model(Detached())[0]

    class Noisy(Own):
        def logits(self, images):
            return super().logits(images) + torch.rand(len(images), 2)

    assert "different answers" in xt.check_model(Noisy())[0]

    class Broken(Own):
        def predict(self, images):
            raise KeyError("nothing here")

    assert "KeyError" in xt.check_model(Broken())[0]


@pytest.mark.parametrize(("given", "error"), [
    ({"task": "tracking"}, "task 'tracking'"), ({"classes": ["a", "a"]}, "different names"), ({"background": "up"}, "background='up'"),
    ({"size": (0, 8)}, "at least 1"),
    ({"size": (8, 8), "shorter": 4}, "one of the two"), ({"crop": (4, 4)}, "crop with task"), ({"order": "grb"}, "order 'grb'"),
    ({"score_threshold": 2}, "0 to 1"), ({"module": torch.zeros(3)}, "expected a torch.nn.Module"), ({"dtype": "int8"}, "dtype 'int8'"),
])  # fmt: skip
def test_wrong_words_to_wrap_are_one_line(given, error):
    with pytest.raises(XaiError, match=error):
        xt.wrap(**{"module": Lamp(), "task": "detection", "classes": ["a", "b"]} | given)
