"""Mask R-CNN, and what Faster R-CNN comes in: every box and every mask leads back to its logits."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d

from tests.detectors import BUILDERS, CLASSES, ONE_STAGE, TWO_STAGE, built, mask_rcnn, model_of, two_stage
from tests.nets import picture, settled
from xaitools.adapters import InstanceModel, TwoStageModel
from xaitools.adapters.tracing import outputs_of
from xaitools.errors import ModelError
from xaitools.targets import bind
from xaitools.types import Decision

SIZES = [(45, 61), (64, 47)]


@pytest.mark.parametrize("family", TWO_STAGE)
@pytest.mark.parametrize("size", SIZES)
def test_the_trace_is_the_networks_own_answer(family, size):
    model = model_of(TWO_STAGE[family](), torch.float32, score_threshold=0.05)
    images = torch.stack([picture(*size, seed=1), picture(*size, seed=2)])
    with torch.no_grad():
        answers = model.module(list(images))
    for prediction, own in zip(model.predict(images), answers, strict=True):
        assert len(prediction.labels) >= 3 and torch.equal(prediction.labels, own["labels"] - 1)
        assert torch.equal(prediction.scores, own["scores"])
        torch.testing.assert_close(prediction.boxes, own["boxes"], atol=1e-3, rtol=0)
        if family == "mask-rcnn":
            assert torch.equal(prediction.masks, own["masks"][:, 0] >= 0.5)
            assert prediction.masks.any() and prediction.cells.dtype == torch.bool and prediction.cells.shape[1:] == (10, 10)


@pytest.mark.parametrize("family", TWO_STAGE)
def test_a_batch_of_two_equals_two_singles(family):
    model = model_of(TWO_STAGE[family](), torch.float32)
    images = torch.stack([picture(41, 53, seed=1), picture(41, 53, seed=2)])
    for one, both in zip([model.predict(image[None])[0] for image in images], model.predict(images), strict=True):
        assert torch.equal(one.labels, both.labels)
        torch.testing.assert_close(one.scores, both.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.boxes, both.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.origins, both.origins, atol=1e-3, rtol=0)


@torch.no_grad()
def test_every_mask_leads_back_to_its_logits():
    model, image = model_of(mask_rcnn()), picture(45, 61)[None].double()
    model.module.roi_heads.score_thresh = 0.0
    prediction = model.predict(image)[0]
    with outputs_of(model.module.roi_heads.mask_predictor) as (outputs,):
        model.module(list(image))
    filled = [index for index, cells in enumerate(prediction.cells) if cells.any()]
    assert len(filled) >= 3 and len(prediction.cells) == len(outputs[0])
    scores = model.scores(image, [bind(f"mask:{index}", prediction) for index in filled])
    for index, score in zip(filled, scores, strict=True):
        logits = outputs[0][index, prediction.labels[index] + 1]
        assert torch.equal(prediction.cells[index], logits > 0)
        assert float(score) == pytest.approx(float(logits[logits > 0].mean()), abs=1e-10)
    chance = replace(bind(f"mask:{filled[0]}", prediction), reading="probability")
    assert 0.5 < float(model.scores(image, [chance])) < 1


@torch.no_grad()
def test_boxes_edges_and_masks_together_equal_one_by_one():
    model, images = model_of(mask_rcnn()), torch.stack([picture(seed=1), picture(seed=2)])
    prediction = model.predict(images[:1])[0]
    filled = [f"mask:{index}" for index, cells in enumerate(prediction.cells) if cells.any()][:2]
    decisions = [bind(each, prediction) for each in (filled[0], "top", "box:1:left", filled[1], "box:1:vs:")]
    table = model.score_table(images, decisions)
    alone = torch.stack([torch.cat([model.scores(image[None], [each]) for image in images]) for each in decisions])
    torch.testing.assert_close(table, alone, atol=1e-10, rtol=0)
    assert table.flatten().unique().numel() == table.numel()


def test_a_gradient_of_a_mask_reaches_the_image_and_nothing_stays():
    model, image = model_of(mask_rcnn()), picture()[None]
    prediction = model.predict(image)[0]
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    decision = bind(f"mask:{[bool(cells.any()) for cells in prediction.cells].index(True)}", prediction)
    x = model.normalise(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.scores_from(x, [decision]).sum(), x)
    assert gradient.abs().sum() > 0 and bool(torch.isfinite(gradient).all())
    heads = model.module.roi_heads
    assert not heads.box_predictor._forward_hooks and not heads.mask_predictor._forward_hooks
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@pytest.mark.parametrize("family", TWO_STAGE)
def test_thresholds_below_and_above_the_networks_own(family):
    net, image = settled(TWO_STAGE[family]()), picture(45, 61)[None]
    kind, heads = (InstanceModel if family == "mask-rcnn" else TwoStageModel), net.roi_heads
    heads.score_thresh, heads.detections_per_img = 0.0, 100
    scores = kind(net, CLASSES, score_threshold=0.0).predict(image)[0].scores
    below, heads.score_thresh, above = (scores.quantile(torch.tensor([0.25, 0.5, 0.75])) + 1e-6).tolist()
    middle = heads.score_thresh
    low, own, high = (kind(net, CLASSES, score_threshold=each).predict(image)[0] for each in (below, middle, above))
    assert len(low.labels) > len(own.labels) > len(high.labels) > 0 and low.scores.min() > below and high.scores.min() > above
    assert torch.equal(low.scores[low.scores > middle], own.scores) and torch.equal(own.scores[own.scores > above], high.scores)
    assert heads.score_thresh == middle
    if family == "mask-rcnn":
        assert torch.equal(own.masks[own.scores > above], high.masks) and torch.equal(own.cells[own.scores > above], high.cells)


def test_nothing_found():
    prediction = model_of(mask_rcnn(), score_threshold=0.9999).predict(picture(45, 61)[None])[0]
    assert prediction.masks.shape == (0, 45, 61) and prediction.cells.shape == (0, 10, 10) and prediction.boxes.shape == (0, 4)


@pytest.mark.parametrize("part", ["boxes", "scores", "labels", "masks"])
def test_another_post_processing_is_refused(part):
    model = model_of(mask_rcnn())
    heads = model.module.roi_heads
    plain = heads.forward

    def other(*args):
        answers, losses = plain(*args)
        for answer in answers:
            answer[part] = answer[part] + (0.01 if answer[part].is_floating_point() else 1)
        return answers, losses

    heads.forward = other
    with pytest.raises(ModelError, match=f"{part} differ from the network's own; give this build as a black box"):
        model.predict(picture()[None])
    assert not heads.box_predictor._forward_hooks and heads.score_thresh == 0.05


@pytest.mark.parametrize("family", ["faster-rcnn", "mask-rcnn"])
def test_one_class(family):
    net = two_stage(outputs=2) if family == "faster-rcnn" else mask_rcnn(2)
    model, image = model_of(net, classes=("disc",)), picture()[None]
    prediction = model.predict(image)[0]
    with torch.no_grad():
        plain, rest, chance = model.scores(image, [
            bind("top", prediction), bind("top:vs:", prediction), replace(bind("top", prediction), reading="probability")
        ])  # fmt: skip
    assert set(prediction.labels.tolist()) == {0} and plain != rest
    assert float(rest.sigmoid()) == pytest.approx(float(chance)) == pytest.approx(float(prediction.scores[0]), abs=1e-6)


def test_fixed_size_and_padding_of_the_transform_are_kept():
    net = two_stage(fixed_size=(64, 48))
    model, image = model_of(net, torch.float32), picture(45, 61)
    batch, _ = model._features(image[None])
    assert batch.tensors.shape[-2:] == net.transform([image])[0].tensors.shape[-2:] == (48, 64)
    with torch.no_grad():
        own = net([image])[0]
    torch.testing.assert_close(model.predict(image[None])[0].boxes, own["boxes"], atol=1e-3, rtol=0)


def test_other_families_are_refused_by_name():
    parts = dict(
        keypoint_roi_pool=None, num_keypoints=3, num_classes=2, rpn_anchor_generator=AnchorGenerator(((8, 16), (24, 32)), ((1.0,),) * 2)
    )
    keypoints = KeypointRCNN(two_stage().backbone, **parts)
    with pytest.raises(ModelError, match="got KeypointRCNN; expected a torchvision FasterRCNN"):
        TwoStageModel(keypoints, ("disc",))
    with pytest.raises(ModelError, match="got FasterRCNN; expected a torchvision MaskRCNN"):
        InstanceModel(two_stage(), CLASSES)
    with pytest.raises(ModelError, match="got RetinaNet; expected a torchvision FasterRCNN"):
        TwoStageModel(ONE_STAGE["retinanet"](), CLASSES)
    net = two_stage()
    net.roi_heads.box_predictor = nn.Identity()
    with pytest.raises(ModelError, match="without cls_score"):
        TwoStageModel(net, CLASSES)
    model = model_of(mask_rcnn())
    with pytest.raises(ModelError, match="a mask is drawn in a box"):
        model.scores(picture()[None], [Decision("mask:0", 0, cells=torch.ones(10, 10, dtype=torch.bool))])


@pytest.mark.parametrize("name", [name if name != "ssd300_vgg16" else pytest.param(name, marks=pytest.mark.long) for name in BUILDERS])
def test_torchvisions_own_networks(name):
    """Their answer is the trace's, a batch is its images, and the best box leads back to its logit."""
    model = model_of(built(name), torch.float32)
    images = torch.stack([picture(61, 75, seed=1), picture(61, 75, seed=2)])
    both = model.predict(images)
    one = model.predict(images[1:])[0]
    assert len(one.labels) >= 3 and not any(isinstance(part, FrozenBatchNorm2d) for part in model.module.modules())
    assert torch.equal(one.labels[:3], both[1].labels[:3])
    torch.testing.assert_close(one.scores[:3], both[1].scores[:3], atol=1e-5, rtol=0)
    decision = replace(bind("top", one), reading="probability")
    with torch.no_grad():
        chance = float(model.scores(images[1:], [decision]))
    if name == "fcos_resnet50_fpn":
        assert chance > float(one.scores[0]) ** 2
    else:
        assert chance == pytest.approx(float(one.scores[0]), abs=1e-5)
