"""Adapters: logits come back at image size, gradients reach the image, every box leads back to its logit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.nets import CLASSES, detector, picture, segmenter
from xaitools.adapters import SegmentationModel, as_found
from xaitools.adapters.base import read
from xaitools.errors import ModelError
from xaitools.targets import bind
from xaitools.types import REST, Decision, Sample

MODELS = {"segmentation": segmenter, "detection": detector}


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("size", [(40, 52), (41, 53), (37, 64)])
def test_a_batch_of_two_equals_two_singles_at_odd_sizes(task, size):
    model = MODELS[task]()
    images = torch.stack([picture(*size, seed=1), picture(*size, seed=2)])
    for one, both in zip([model.predict(images[:1])[0], model.predict(images[1:])[0]], model.predict(images), strict=True):
        assert one.image_size == both.image_size == size
        assert torch.equal(one.labels, both.labels)
        torch.testing.assert_close(one.scores, both.scores, atol=1e-5, rtol=0)
        for name in ("semantic", "boxes"):
            if getattr(one, name) is not None:
                torch.testing.assert_close(getattr(one, name), getattr(both, name), atol=1e-3, rtol=0)


@pytest.mark.parametrize("task", MODELS)
def test_a_gradient_reaches_the_image(task):
    model, image = MODELS[task](), picture()[None]
    decision = bind("top", model.predict(image)[0])
    x = model.normalise(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.scores_from(x, [decision]).sum(), x)
    assert gradient.abs().sum() > 0 and bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("task", MODELS)
def test_score_table_equals_scores_one_by_one(task):
    model, images = MODELS[task](torch.float64), torch.stack([picture(seed=1), picture(seed=2)])
    prediction = model.predict(images[:1])[0]
    decisions = [bind("top", prediction), bind("top:vs:", prediction)]
    table = model.score_table(images, decisions)
    alone = torch.stack([torch.cat([model.scores(image[None], [each]) for image in images]) for each in decisions])
    torch.testing.assert_close(table, alone, atol=1e-10, rtol=0)


def test_segmentation_resizes_inside_and_answers_at_image_size():
    model = segmenter(size=(24, 32))
    prediction = model.predict(picture(45, 61)[None])[0]
    assert prediction.semantic.shape == (45, 61)
    areas = torch.bincount(prediction.semantic.flatten(), minlength=3)[prediction.labels]
    assert areas.tolist() == sorted(areas.tolist(), reverse=True) and areas.sum() == 45 * 61


@torch.no_grad()
def test_every_final_box_leads_back_to_its_probability():
    model = detector(torch.float64, score_threshold=0.0)
    image = picture(45, 61)[None]
    prediction = model.predict(image)[0]
    assert len(prediction.labels) >= 3
    for index, score in enumerate(prediction.scores):
        decision = replace(bind(f"box:{index}", prediction), reading="probability")
        assert float(model.scores(image, [decision])) == pytest.approx(float(score), abs=1e-6)


def test_traced_boxes_equal_the_networks_own():
    model = detector(score_threshold=0.0)
    model.module.roi_heads.score_thresh = 0.0
    image = picture(45, 61)
    prediction = model.predict(image[None])[0]
    with torch.no_grad():
        own = model.module([image])[0]
    torch.testing.assert_close(own["boxes"], prediction.boxes, atol=1e-3, rtol=0)
    assert torch.equal(own["labels"] - 1, prediction.labels) and torch.equal(own["scores"], prediction.scores)


@torch.no_grad()
def test_an_edge_score_moves_its_edge():
    """The score of an edge is its displacement in sides of the proposal, to first order in the regression outputs."""
    model = detector(torch.float64, score_threshold=0.0)
    model.module.roi_heads.box_predictor.bbox_pred.weight.data *= 0.1  # small moves, where first order is enough
    model.module.roi_heads.box_predictor.bbox_pred.bias.data.zero_()
    image, proposal = picture(48, 60)[None], torch.tensor([12.0, 10, 40, 36], dtype=torch.float64)
    batch, features = model._features(model.normalise(image))
    _, deltas = model._second_stage(features, [proposal[None]], batch)
    decoded = model.module.roi_heads.box_coder.decode(deltas, [proposal[None]])[0, 2]
    moved = (decoded - proposal) / (proposal[2:] - proposal[:2]).repeat(2)
    assert moved.abs().min() > 1e-4
    for axis, edge in enumerate(("left", "top", "right", "bottom")):
        score = model.scores(image, [Decision("edge", 1, proposal=proposal, edge=edge)])
        assert float(score) == pytest.approx(float(moved[axis]), rel=2e-2)


def test_two_boxes_of_one_class_have_different_scores():
    model = detector(score_threshold=0.0)
    image = picture(45, 61)[None]
    decision = bind("box:0", model.predict(image)[0])
    other = replace(decision, proposal=torch.tensor([2.0, 2, 20, 18]))
    first, second = model.scores(image, [decision, other])
    assert first != second


def test_reading_contrasts_and_probabilities():
    logits = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert read(logits, Decision("t", 2)) == 4
    assert read(logits, Decision("t", 2, versus=0)) == 3
    assert read(logits, Decision("t", 2, versus=REST)) == pytest.approx(4 - float(torch.logsumexp(logits[:2], 0)))
    assert read(logits, Decision("t", 2, reading="probability")) == pytest.approx(float(logits.softmax(0)[2]))


@pytest.mark.parametrize("task", MODELS)
def test_loss_is_higher_for_a_wrong_truth_and_differentiable(task):
    model = MODELS[task](torch.float64)
    images = picture(40, 52)[None].double().requires_grad_(True)
    prediction = model.predict(images.detach())[0]

    def truth(shift: int) -> Sample:
        if task == "segmentation":
            return Sample("a", images[0].detach(), semantic=(prediction.semantic + shift) % 3)
        return Sample("a", images[0].detach(), boxes=prediction.boxes[:1], labels=(prediction.labels[:1] + shift) % 2)

    right, wrong = model.loss(images, [truth(0)]), model.loss(images, [truth(1)])
    assert right < wrong
    assert torch.autograd.grad(right.sum(), images)[0].abs().sum() > 0


@torch.no_grad()
def test_an_image_without_objects_has_no_detection_loss():
    model = detector()
    empty = Sample("a", picture(), boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    assert float(model.loss(picture()[None], [empty])) == 0


def test_modes_and_flags_are_as_found_also_after_an_error():
    model = segmenter()
    model.module.train()
    model.module.stem[1].eval()
    before = [(part.training) for part in model.module.modules()]
    with pytest.raises(RuntimeError), as_found(model):
        assert not any(part.training for part in model.module.modules())
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
        raise RuntimeError
    assert [part.training for part in model.module.modules()] == before
    assert all(parameter.requires_grad for parameter in model.module.parameters())


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (torch.zeros(3, 8, 8), "expected a float tensor"), (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "expected a float tensor"),
        (torch.full((1, 3, 8, 8), 200.0), "divide by 255"), (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
    ],
)  # fmt: skip
def test_images_that_are_none_are_refused(images, word):
    with pytest.raises(ModelError, match=word):
        segmenter().predict(images)


def test_a_network_with_the_wrong_output_is_refused_in_one_line():
    with pytest.raises(ModelError, match="one channel a class"):
        SegmentationModel(nn.Conv2d(3, 5, 1), CLASSES).predict(picture()[None])
    with pytest.raises(ModelError, match="3 class outputs for 3 classes"):
        type(detector())(detector().module, CLASSES)
