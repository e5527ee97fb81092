"""R-CNN and Fast R-CNN: proposals from outside, the crop, the pooling, and what R-CNN learns after its network."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from tests.detectors import fast_rcnn, model_of, rcnn
from tests.nets import picture, settled
from xaitools.architectures.fast_rcnn import RoIPool
from xaitools.architectures.rcnn import Warp
from xaitools.architectures.selective_search import ExactResize, SelectiveSearch
from xaitools.targets import bind
from xaitools.training.rcnn import finish
from xaitools.types import Sample


def scene():
    """Two flat squares on grey, and their boxes."""
    image = torch.full((3, 48, 64), 0.5)
    boxes = torch.tensor([[6.0, 8, 22, 24], [36.0, 20, 56, 40]])
    for colour, (left, top, right, bottom) in zip(((0.9, 0.2, 0.1), (0.1, 0.3, 0.9)), boxes.int().tolist(), strict=True):
        image[:, top:bottom, left:right] = torch.tensor(colour).view(3, 1, 1)
    return image, boxes


def test_selective_search_finds_plain_objects_and_repeats_itself():
    image, boxes = scene()
    search = SelectiveSearch((0.0,) * 3, (1.0,) * 3)
    found = search.search(image)
    near = (found[:, None] - boxes).abs().amax(2) <= 1
    assert near.any(0).all(), found
    assert torch.equal(found, search.search(image)) and len(torch.unique(found, dim=0)) == len(found)
    sides = found[:, 2:] - found[:, :2]
    assert (sides >= 6).all() and (found >= 0).all() and (found[:, 2] <= 64).all() and (found[:, 3] <= 48).all()


def test_proposals_are_those_of_the_picture_behind_normalisation_and_padding():
    image, _ = scene()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    x = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    padded = torch.zeros(1, 3, 64, 96)
    padded[0, :, :48, :64] = x
    (found,), losses = SelectiveSearch(mean, std)(ImageList(padded, [(48, 64)]))
    assert torch.equal(found, SelectiveSearch((0.0,) * 3, (1.0,) * 3).search(image)) and losses == {}


def test_the_number_of_threads_does_not_change_a_pixel():
    images = [torch.rand(3, 480, 640, generator=torch.Generator().manual_seed(0))]
    before, shown = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            shown.append(ExactResize(192, 256, [0.66, 0.64, 0.68], [0.2, 0.2, 0.12])(images)[0].tensors)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(shown[0], shown[1]) and torch.equal(shown[0], shown[2])


def test_regions_of_training_come_in_shares_of_the_image():
    images = ImageList(torch.zeros(1, 3, 64, 96), [(48, 80)])
    (found,), _ = SelectiveSearch((0.0,) * 3, (1.0,) * 3)(images, None, [{"regions": torch.tensor([[0.25, 0.5, 0.75, 1.0]])}])
    assert found.tolist() == [[20.0, 24.0, 60.0, 48.0]]


def test_the_warp_of_a_ramp_is_a_ramp_with_context_and_the_mean_outside():
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    image = torch.stack([x, y, torch.ones(40, 60)])[None]
    boxes = [torch.tensor([[20.0, 10, 44, 22], [-30.0, -30, -6, -6]])]
    inside, outside = Warp(16, 2)({"0": image}, boxes, [(40, 60)])
    # 12 of 16 pixels show the box: 24 wide, 12 high
    assert torch.allclose(inside[0, 5], 20 + (torch.arange(16) - 2 + 0.5) * 2, atol=1e-4)
    assert torch.allclose(inside[1, :, 5], 10 + (torch.arange(16) - 2 + 0.5), atol=1e-4)
    assert (inside[2] == 1).all() and (outside == 0).all()


def test_roi_pooling_takes_the_largest_value_of_each_cell():
    maps = torch.rand(1, 2, 12, 16)
    (pooled,) = RoIPool(2, 4)({"0": maps}, [torch.tensor([[8.0, 4, 40, 36]])], [(48, 64)])
    part = maps[0, :, 1:10, 2:11]  # both ends count: 9 cells a side, of which the middle one belongs to both
    expected = torch.stack(
        [part[:, rows][:, :, columns].amax((1, 2)) for rows in (slice(0, 5), slice(4, 9)) for columns in (slice(0, 5), slice(4, 9))], 1
    )
    assert torch.equal(pooled.flatten(1), expected)


def test_a_margin_of_rcnn_sees_only_its_crop_and_fast_rcnn_more():
    image = picture(48, 64)[None].double()
    seen = {}
    for name, net in (("rcnn", rcnn()), ("fast-rcnn", fast_rcnn())):
        model = model_of(net)
        decision = bind("box:16,12,40,36:disc", model.predict(image)[0])
        x = model.normalise(image).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model.scores_from(x, [decision]).sum(), x)
        rows, columns = torch.where(gradient[0].abs().sum(0) > 0)
        seen[name] = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    left, top, right, bottom = seen["rcnn"]
    assert 12 <= left <= 16 and 8 <= top <= 12 and 40 <= right <= 44 and 36 <= bottom <= 40  # 2 pixels of context at that size
    assert seen["fast-rcnn"][0] < left and seen["fast-rcnn"][2] > right


def test_scores_of_rcnn_judge_each_class_alone():
    model, image = model_of(rcnn()), picture(48, 64)[None]
    prediction = model.predict(image)[0]
    decision = bind("box:0", prediction)
    with torch.no_grad():
        above_nothing = model.scores(image, [decision]) - _nothing(model, image, prediction)
    assert float(prediction.scores[0]) == pytest.approx(float((4 * above_nothing).sigmoid()), abs=1e-5)


def test_an_attack_meets_what_the_search_finds_near_an_object_in_the_image_as_it_is():
    image, boxes = scene()
    model = model_of(rcnn())
    truth = Sample("x", image, boxes=boxes, labels=torch.tensor([0, 1]))
    for x in (image, torch.full_like(image, 0.5)):  # in the second there is nothing to find
        with torch.no_grad():
            everything, known = (model.candidates(x[None], samples)[0].log_scores for samples in (None, [truth]))
            batch, features = model._features(model.normalise(x[None]))
            proposals = model.module.rpn(batch, features, None)[0][0]
        within = (box_iou(proposals, boxes) >= 0.2).any(1)
        assert len(known) == 2 * 27 + int(within.sum()) and len(everything) == len(proposals)
        assert torch.allclose(known[2 * 27 :], everything[within], atol=1e-5)
        assert bool(within.any()) is (x is image)


def _nothing(model, image, prediction):
    """The output for "nothing" at the proposal of box 0; 0 in a network whose SVMs are fitted."""
    heads = model.module.roi_heads
    x = model.normalise(image)
    pooled = heads.box_head(heads.box_roi_pool({"0": x}, [prediction.origins[:1].to(x)], [(48, 64)]))
    return float(heads.box_predictor(pooled)[0][0, 0])


def test_svms_and_regressors_learn_what_the_features_hold():
    """Squares of two colours, features of a random network: the SVMs tell them apart, the regressors pull boxes to them."""
    torch.manual_seed(0)
    net, pairs = settled(rcnn(3)).float(), []
    for shift in range(12):
        image, boxes = scene()
        noisy = (image + 0.02 * torch.randn(image.shape)).clamp(0, 1).roll(shift % 4, -1)
        boxes = boxes + torch.tensor([shift % 4, 0, shift % 4, 0])
        near = (boxes[:, None] + torch.randint(-3, 4, (2, 20, 4))).flatten(0, 1)
        far = torch.rand(60, 2) * torch.tensor([40, 30])
        regions = torch.cat([near, torch.cat([far, far + 6 + torch.rand(60, 2) * 12], 1)])
        pairs.append(((noisy * 255).to(torch.uint8), {"boxes": boxes, "labels": torch.tensor([1, 2]), "regions": regions.float()}))
    said = []
    finish(net, pairs, 0, said.append)
    assert len(said) == 3 and "12 objects" in said[1]
    heads, (image, boxes) = net.roi_heads, scene()
    moved = boxes + torch.tensor([2.0, 2, 2, 2])
    batch, _ = net.transform([image], None)
    with torch.no_grad():
        pooled = heads.box_head(heads.box_roi_pool({"0": batch.tensors}, [torch.cat([boxes, moved])], batch.image_sizes))
        margins, offsets = heads.box_predictor(pooled)
    assert (margins[:, 0] == 0).all()
    assert margins[0, 1] > margins[1, 1] + 0.05 and margins[1, 2] > margins[0, 2] + 0.05
    pulled = heads.box_coder.decode(offsets, [torch.cat([boxes, moved])])
    pulled = pulled[torch.arange(4), torch.tensor([1, 2, 1, 2])]
    assert (pulled[2:] - boxes).abs().mean() < 0.8 * (moved - boxes).abs().mean()
