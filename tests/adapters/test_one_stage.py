"""One-stage detectors: the trace is the network's own answer, and every box leads back to its anchor's logit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.detectors import CLASSES, ONE_STAGE, fcos, model_of, retinanet, ssd
from tests.nets import picture, settled
from xaitools.adapters import OneStageModel
from xaitools.errors import ModelError
from xaitools.targets import bind
from xaitools.types import Decision, Sample

SIZES = [(45, 61), (64, 47)]


def whole_head(model: OneStageModel, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the heads say of all levels at once."""
    with torch.no_grad():
        _, features = model._features(model.normalise(image[None]))
        return model.module.head(features)


@pytest.mark.parametrize("family", ONE_STAGE)
@pytest.mark.parametrize("size", SIZES)
def test_the_trace_is_the_networks_own_answer(family, size):
    model = model_of(ONE_STAGE[family](), torch.float32)
    images = torch.stack([picture(*size, seed=1), picture(*size, seed=2)])
    with torch.no_grad():
        answers = model.module(list(images))
    model.score_threshold = model.module.score_thresh
    for prediction, own in zip(model.predict(images), answers, strict=True):
        listed = (own["labels"] > 0) & (own["boxes"][:, 2:] > own["boxes"][:, :2]).all(1)
        assert len(prediction.labels) >= 4 and prediction.labels.unique().numel() > 1
        assert torch.equal(prediction.labels, own["labels"][listed] - 1) and torch.equal(prediction.scores, own["scores"][listed])
        torch.testing.assert_close(prediction.boxes, own["boxes"][listed], atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ONE_STAGE)
def test_every_box_leads_back_to_its_logit_and_its_score(family):
    model, image = model_of(ONE_STAGE[family]()), picture(45, 61)
    prediction, heads = model.predict(image[None])[0], whole_head(model, image)
    count = len(prediction.labels)
    decisions = [bind(f"box:{index}", prediction) for index in range(count)]
    with torch.no_grad():
        scores = model.scores(image[None], decisions)
    logits = heads["cls_logits"][0, prediction.anchors]
    torch.testing.assert_close(scores, logits[torch.arange(count), prediction.labels + 1], atol=1e-10, rtol=0)
    if model.sigmoid:
        chances = scores.sigmoid()
        if family == "fcos":
            chances = (chances * heads["bbox_ctrness"][0, prediction.anchors, 0].sigmoid()).sqrt()
    else:
        chances = logits.softmax(1)[torch.arange(count), prediction.labels + 1]
    torch.testing.assert_close(prediction.scores.double(), chances, atol=1e-6, rtol=0)
    assert torch.equal(prediction.scores, prediction.scores.sort(descending=True).values)

    last = len(prediction.candidates) - 1  # on the other level
    with torch.no_grad():
        assert float(model.scores(image[None], [Decision("last", 2, anchor=last)])) == pytest.approx(float(heads["cls_logits"][0, last, 3]))


@pytest.mark.parametrize("family", ONE_STAGE)
def test_candidates_are_what_each_anchor_reports(family):
    model = model_of(ONE_STAGE[family]())
    prediction = model.predict(picture(45, 61)[None])[0]
    torch.testing.assert_close(prediction.candidates[prediction.anchors], prediction.boxes, atol=1e-9, rtol=0)
    x1, y1, x2, y2 = prediction.boxes[0].tolist()
    assert bind(f"box:{x1},{y1},{x2},{y2}:star", prediction).anchor == int(prediction.anchors[0])


@pytest.mark.parametrize("family", ONE_STAGE)
def test_a_batch_of_two_equals_two_singles(family):
    model = model_of(ONE_STAGE[family](), torch.float32)
    images = torch.stack([picture(41, 53, seed=1), picture(41, 53, seed=2)])
    for one, both in zip([model.predict(image[None])[0] for image in images], model.predict(images), strict=True):
        assert torch.equal(one.labels, both.labels) and torch.equal(one.anchors, both.anchors)
        torch.testing.assert_close(one.scores, both.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.boxes, both.boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ONE_STAGE)
def test_scores_of_many_images_and_levels_equal_one_by_one(family):
    model, images = model_of(ONE_STAGE[family]()), torch.stack([picture(seed=1), picture(seed=2)])
    prediction = model.predict(images[:1])[0]
    last = len(prediction.candidates) - 1  # on the other level
    other = CLASSES[int(prediction.labels[1] + 1) % 3]
    decisions = [
        bind("top", prediction), Decision("last", 1, anchor=last), bind("box:0:left", prediction),
        Decision("last", 1, anchor=last, edge="top"), bind("box:1:vs:", prediction), bind(f"box:1:vs:{other}", prediction),
    ]  # fmt: skip
    with torch.no_grad():
        table = model.score_table(images, decisions)
        alone = torch.stack([torch.cat([model.scores(image[None], [each]) for image in images]) for each in decisions])
    torch.testing.assert_close(table, alone, atol=1e-10, rtol=0)
    assert table.flatten().unique().numel() >= table.numel() - 4  # FCOS's distances are 0 where the ReLU is off


@pytest.mark.parametrize("family", ONE_STAGE)
def test_only_the_level_in_question_runs(family):
    model, image = model_of(ONE_STAGE[family]()), picture()[None]
    decision = bind("top", model.predict(image)[0])
    ran = []
    hooks = [
        part.register_forward_hook(lambda *call: ran.append(call)) for part in model.module.head.modules() if isinstance(part, nn.Conv2d)
    ]
    model.scores(image, [decision])
    for hook in hooks:
        hook.remove()
    assert len({id(module) for module, _, _ in ran}) == len(ran) > 0
    assert not any(module in set(model.module.head.regression_head.modules()) for module, _, _ in ran)


@pytest.mark.parametrize("family", ONE_STAGE)
def test_thresholds_below_and_above_the_networks_own(family):
    image, net = picture(45, 61)[None], ONE_STAGE[family]()
    settled(net).double()
    net.score_thresh, net.topk_candidates, net.detections_per_img = 0.0, 10_000, 10_000

    def found(threshold):
        prediction = OneStageModel(net, CLASSES, score_threshold=threshold).predict(image)[0]
        rows = zip(prediction.anchors.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
        return {(anchor, label): score for anchor, label, score in rows}

    scores = torch.tensor(list(found(0.0).values()))
    below, middle, above = (scores.quantile(torch.tensor([0.25, 0.5, 0.75])) + 1e-6).tolist()  # beside every score, also in float32
    net.score_thresh = middle
    low, own, high = found(below), found(middle), found(above)
    assert len(low) > len(own) > len(high) > 0 and below < min(low.values()) < middle and above < min(high.values())
    assert own == {key: score for key, score in low.items() if score > middle}
    assert high == {key: score for key, score in own.items() if score > above}
    assert net.score_thresh == middle


@pytest.mark.parametrize("family", ONE_STAGE)
@pytest.mark.parametrize("part", ["boxes", "scores", "labels", "all"])
def test_another_post_processing_is_refused(family, part):
    model = model_of(ONE_STAGE[family]())
    plain, before = model.module.postprocess_detections, model.module.score_thresh

    def other(*args):
        answers = plain(*args)
        for answer in answers:
            for key in answer if part == "all" else [part]:
                answer[key] = answer[key][1:] if part == "all" else answer[key] + 1
        return answers

    model.module.postprocess_detections = other
    with pytest.raises(ModelError, match="black box"):
        model.predict(picture()[None])
    assert model.module.score_thresh == before


@torch.no_grad()
@pytest.mark.parametrize("family", ["retinanet", "ssd"])
def test_an_edge_score_moves_its_edge_to_first_order(family):
    model, image = model_of(ONE_STAGE[family]()), picture(48, 60)[None]
    for name, parameter in model.module.head.regression_head.named_parameters():
        if "bbox_reg" in name or "module_list" in name:
            parameter *= 0.05 * (parameter.dim() > 1)
    _, outputs, boxes = edges_of(model, image)
    moved = (outputs - boxes) / (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert moved.abs().min() > 1e-7
    for axis, edge in enumerate(("left", "top", "right", "bottom")):
        scores = model.scores(image, [Decision("edge", 1, anchor=number, edge=edge) for number in range(len(boxes))])
        torch.testing.assert_close(scores, moved[:, axis], atol=1e-3, rtol=2e-2)


@torch.no_grad()
def test_an_edge_score_of_fcos_is_its_distance_from_the_centre():
    model, image = model_of(fcos()), picture(48, 60)[None]
    _, decoded, anchors = edges_of(model, image)
    centres, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    moved = (decoded - centres.repeat(1, 2)) / sides.repeat(1, 2)
    assert moved[:, 0].min() < 0 < moved[:, 2].max()
    for axis, edge in enumerate(("left", "top", "right", "bottom")):
        scores = model.scores(image, [Decision("edge", 1, anchor=number, edge=edge) for number in range(len(anchors))])
        torch.testing.assert_close(scores, moved[:, axis], atol=1e-9, rtol=0)


def edges_of(model, image):
    """Heads' outputs, decoded boxes and anchors of the network's input, nothing clipped."""
    batch, features = model._features(model.normalise(image))
    outputs, anchors = model.module.head(features), model.module.anchor_generator(batch, features)[0].double()
    coder = model.module.box_coder
    decode = coder.decode_single if hasattr(coder, "decode_single") else coder.decode
    return outputs, decode(outputs["bbox_regression"][0], anchors), anchors


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_without_a_background_output_label_0_is_the_first_class(make):
    model, image = model_of(make(3), first=0), picture()
    model.module.head.classification_head.cls_logits.bias.data[0] += 1
    prediction = model.predict(image[None])[0]
    assert 0 in prediction.labels
    with torch.no_grad():
        own = model.module([image.double()])[0]
        score = model.scores(image[None], [bind("top", prediction)])
    assert prediction.labels[0] == own["labels"][0] and prediction.scores[0] == own["scores"][0].float()
    assert float(score) == float(whole_head(model, image)["cls_logits"][0, prediction.anchors[0], prediction.labels[0]])


def test_the_unused_output_takes_no_part():
    model, image = model_of(retinanet()), picture()[None]
    decision = bind("top:vs:", model.predict(image)[0])
    before = model.scores(image, [decision]).detach()
    model.module.head.classification_head.cls_logits.bias.data[::4] += 5
    assert torch.equal(model.scores(image, [decision]).detach(), before)
    assert not len(model.predict(image)[0].labels)  # what torchvision lists now is no class


def test_one_class():
    model, image = model_of(retinanet(2), classes=("disc",)), picture()[None]
    prediction = model.predict(image)[0]
    with torch.no_grad():
        plain, rest = model.scores(image, [bind("top", prediction), bind("top:vs:", prediction)])
        chance = model.scores(image, [replace(bind("top", prediction), reading="probability")])
    assert plain == rest and set(prediction.labels.tolist()) == {0}
    assert float(chance) == pytest.approx(float(prediction.scores[0]), abs=1e-6)


@pytest.mark.parametrize("family", ONE_STAGE)
def test_a_gradient_reaches_the_image_and_nothing_stays(family):
    model, image = model_of(ONE_STAGE[family]()), picture()[None]
    model.module.train()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    decision = bind("top", model.predict(image)[0])
    assert model.module.training and all(parameter.requires_grad for parameter in model.module.parameters())
    model.module.eval()
    x = model.normalise(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.scores_from(x, [decision]).sum(), x)
    assert gradient.abs().sum() > 0 and bool(torch.isfinite(gradient).all())
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


# -- the loss


def sample_of(boxes, labels) -> Sample:
    return Sample("a", picture(), boxes=torch.as_tensor(boxes, dtype=torch.float32), labels=torch.as_tensor(labels))


@pytest.mark.parametrize("family", ONE_STAGE)
def test_raising_the_loss_makes_the_detector_miss(family):
    model = model_of(ONE_STAGE[family]())
    images = picture(48, 60)[None].double()
    truth = sample_of([[12.0, 10, 40, 38], [2.0, 2, 14, 16]], [1, 2])
    wrong = sample_of([[12.0, 10, 40, 38], [2.0, 2, 14, 16]], [0, 0])
    assert model.loss(images, [truth]) != model.loss(images, [wrong])

    with torch.no_grad():
        rows, objects = model.candidates(images)[0].near(truth)
    assert set(objects.tolist()) == {0, 1}

    def chances(x):
        with torch.no_grad():
            return model.candidates(x)[0].log_scores.exp()[rows, truth.labels[objects]].mean()

    x = images.clone()
    for _ in range(5):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(model.loss(x, [truth]).sum(), x)
        x = (x + 0.004 * gradient.sign()).clamp(0, 1).detach()
    assert chances(x) < chances(images)  # of the same candidates; others may have come near


@pytest.mark.parametrize("family", ONE_STAGE)
def test_the_loss_is_of_each_image(family):
    model = model_of(ONE_STAGE[family]())
    images = torch.stack([picture(48, 60, seed=1), picture(48, 60, seed=2)]).double()
    samples = [sample_of([[12.0, 10, 40, 38]], [1]), sample_of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    with torch.no_grad():
        both = model.loss(images, samples)
        assert both.shape == (2,) and both[0] < 0 == both[1]
        torch.testing.assert_close(both[:1], model.loss(images[:1], samples[:1]), atol=1e-10, rtol=0)


@torch.no_grad()
def test_the_loss_of_fcos_rises_when_centerness_falls():
    model, images, samples = model_of(fcos()), picture(48, 60)[None].double(), [sample_of([[12.0, 10, 40, 38]], [1])]
    before = model.loss(images, samples)
    model.module.head.regression_head.bbox_ctrness.bias.data -= 3
    assert float(model.loss(images, samples)) > 0.5 * float(before)


# -- what is refused


def test_what_is_no_such_detector_is_refused_in_one_line():
    with pytest.raises(ModelError, match="expected a torchvision RetinaNet, FCOS or SSD"):
        OneStageModel(nn.Conv2d(3, 3, 1), CLASSES)
    with pytest.raises(ModelError, match="4 class outputs for 4 classes and an unused output before them; .* first=0"):
        OneStageModel(retinanet(), (*CLASSES, "more"))
    with pytest.raises(ModelError, match="4 class outputs for 2 classes and background"):
        OneStageModel(ssd(), CLASSES[:2])
    with pytest.raises(ModelError, match="output 0 of an SSD is background"):
        OneStageModel(ssd(), (*CLASSES, "more"), first=0)
    with pytest.raises(ModelError, match="first=2; expected 1 or 0"):
        OneStageModel(fcos(), CLASSES[:2], first=2)
    net = retinanet()
    net.head.classification_head = nn.Identity()
    with pytest.raises(ModelError, match="heads Identity and RetinaNetRegressionHead"):
        OneStageModel(net, CLASSES)


def test_decisions_of_others_are_refused_in_one_line():
    model, image = model_of(retinanet()), picture()[None]
    with pytest.raises(ModelError, match="names no box"):
        model.scores(image, [Decision("class:disc", 0)])
    with pytest.raises(ModelError, match="another size"):
        model.scores(image, [Decision("box:0", 0, anchor=10**6)])
