"""YOLO v1 and YOLO with anchors: decoding and losses by hand, and the explanations of their boxes."""

import math

import pytest
import torch
from torchvision.ops import box_iou

import xaitools as xt
from tests.nets import picture, settled
from xaitools import zoo
from xaitools.architectures import ARCHITECTURES
from xaitools.architectures.yolo import cluster_anchors, shape_overlaps
from xaitools.errors import ModelError
from xaitools.targets import bind

CLASSES = ["disc", "square", "star"]
TINY = {
    "yolo-v1": {"widths": [[4], [6, 8], [8]]},
    "yolo": {"widths": [[4], [6, 8], [8]], "anchors": [[8, 8], [20, 16]]},
}  # fmt: skip
INPUT = {"size": [40, 56], "background": "none", "mean": [0.5] * 3, "std": [0.25] * 3}


def built(name, dtype="float64", **network):
    facts = {"architecture": name, "task": "detection", "classes": CLASSES, "network": TINY[name] | network, "input": INPUT}
    return zoo.adapt(settled(zoo.build(facts)), facts, name=name, dtype=dtype)


@pytest.fixture(scope="module", params=TINY)
def model(request):
    return built(request.param)


@pytest.fixture(scope="module")
def image():
    return picture(45, 61).double()


def test_boxes_come_back_at_the_size_of_any_image(model, image):
    prediction = model.predict(image[None])[0]
    assert prediction.image_size == (45, 61) and len(prediction.boxes) > 1
    boxes = prediction.boxes
    assert float(boxes.min()) >= 0 and float(boxes[:, 2].max()) <= 61 and float(boxes[:, 3].max()) <= 45
    assert prediction.candidates.shape == (2 * 5 * 7, 4)
    with pytest.raises(ModelError, match=r"45x61; expected multiples of 8"):
        model.module(image[None])


def test_a_batch_of_two_equals_two_singles(model):
    images = torch.stack([picture(45, 61, seed) for seed in (0, 1)]).double()
    decisions = [bind("box:0", model.predict(each[None])[0]) for each in images]
    both = model.scores(images, decisions)
    singles = torch.cat([model.scores(each[None], [decision]) for each, decision in zip(images, decisions, strict=True)])
    torch.testing.assert_close(both, singles, rtol=1e-10, atol=1e-10)
    assert abs(float(both[0] - both[1])) > 1e-6


@pytest.mark.parametrize("method", ["lrp", "lrp-epsilon", "lrp-epsilon-gamma-box", "lrp-epsilon-alpha2beta1-flat", "gradient-x-input"])
def test_maps_of_two_boxes_differ_and_the_ledger_closes(model, image, method):
    prediction = model.predict(image[None])[0]
    cells = [int(anchor) // 2 for anchor in prediction.anchors]
    other = next(index for index, cell in enumerate(cells) if cell != cells[0])
    one, two = xt.explain_many(model, image, ["box:0", f"box:{other}"], method)
    for each in (one, two):
        assert each.values.shape == (45, 61) and bool(each.values.isfinite().all()) and float(each.values.abs().sum()) > 0
    assert not torch.allclose(one.values, two.values)


@pytest.mark.parametrize("method", ["lrp", "lrp-epsilon", "lrp-alpha2beta1"])
def test_the_ledger_closes(model, image, method):
    from xaitools.attribution.lrp import composite, relevance

    decisions = [bind(target, model.predict(image[None])[0]) for target in ("box:0", "box:1", "box:0:vs:")]
    rules = composite(method, low=-2.0, high=2.0)
    found = relevance(lambda x: model.scores_from(x, decisions), model.normalise(image[None]), rules, model.parameter_names())
    for each, score in zip(found, model.scores(image[None], decisions).tolist(), strict=True):
        assert each.score == pytest.approx(score, rel=1e-12)
        absorbed = sum(amount for _, amount in each.ledger)
        assert abs(each.score - float(each.values.sum()) - absorbed) <= 1e-9 * max(1.0, abs(score), abs(float(each.values.sum())))


def test_epsilon_to_zero_is_gradient_times_input(model, image):
    one = xt.explain(model, image, "box:0", "lrp-epsilon", epsilon=1e-12).values.double()
    other = xt.explain(model, image, "box:0", "gradient-x-input").values.double()
    assert float((one - other).abs().sum() / other.abs().sum()) < 1e-5


# ---- the numbers, by hand


def test_yolo_v1_reads_a_cell_as_the_paper_does():
    net = ARCHITECTURES["yolo-v1"](3, **TINY["yolo-v1"])
    raw = torch.full((1, 13, 5, 7), -9.0)
    raw[0, :, 2, 3] = torch.tensor([1.0, 2, 3, 4, 5, 0, 0, 0, 0, 9, 9, 0, 0])
    net.raw = lambda x: raw
    out = net(torch.zeros(1, 3, 40, 56))
    first = (2 * 7 + 3) * 2  # two boxes a cell
    assert out["logits"][0, first].tolist() == out["logits"][0, first + 1].tolist() == [1, 2, 3]
    assert out["objectness"][0, first : first + 2].tolist() == [4, 5]
    # the centre in the middle of the cell, sides a quarter of the image: the root of both is a half
    torch.testing.assert_close(out["boxes"][0, first], torch.tensor([28 - 7.0, 20 - 5.0, 28 + 7.0, 20 + 5.0]))
    torch.testing.assert_close(out["boxes"][0, first + 1], torch.tensor([32 - 7.0, 24 - 5.0, 32 + 7.0, 24 + 5.0]), atol=1e-2, rtol=0)


def test_the_factor_is_what_silences_empty_cells():
    scores = {}
    for conditional in (True, False):
        model = built("yolo-v1", conditional=conditional)
        assert ("objectness" in model.module(torch.zeros(1, 3, 40, 56).double())) == conditional
        with torch.no_grad():
            model.module.head.bias[3:5] -= 20  # no confidence anywhere
        scores[conditional] = len(model.predict(picture()[None].double())[0].scores)
    assert scores[True] == 0 < scores[False]


def logit(p):
    return math.log(p / (1 - p))


def test_the_loss_of_yolo_v1_is_equation_3():
    """One object in cell (1, 2); the second of two boxes overlaps it most."""
    net = ARCHITECTURES["yolo-v1"](3, **TINY["yolo-v1"]).double()
    raw = torch.zeros(1, 13, 5, 7, dtype=torch.float64)
    cell = [logit(0.2), logit(0.7), logit(0.1), logit(0.3), logit(0.6)] + [logit(v) for v in (0.5, 0.5, 0.9, 0.9, 0.4, 0.5, 0.5, 0.6)]
    raw[0, :, 1, 2] = torch.tensor(cell, dtype=torch.float64)
    box = torch.tensor([[16.0, 5.0, 30.0, 19.0]], dtype=torch.float64)  # centre (23, 12), sides 14 x 14
    found = (16 + 3.2 - 7, 12 - 7.2, 16 + 3.2 + 7, 12 + 7.2)  # what the second box says: shares 0.25 and 0.36
    inside = (min(30, found[2]) - 16) * (min(19, found[3]) - 5)
    iou = inside / (14 * 14 + 14 * 14.4 - inside)
    place = (0.4 - 7 / 8) ** 2 + (0.5 - 0.5) ** 2 + (0.5 - math.sqrt(14 / 56)) ** 2 + (0.6 - math.sqrt(14 / 40)) ** 2
    kinds = (0.2 - 0) ** 2 + (0.7 - 1) ** 2 + (0.1 - 0) ** 2
    empty = 0.3**2 + 34 * 2 * 0.5**2
    expected = 5 * place + (0.6 - iou) ** 2 + 0.5 * empty + kinds
    loss = net.loss(raw, torch.tensor([0]), box, torch.tensor([1]))
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    # a second object in the same cell cannot be said; one of another image can
    assert float(net.loss(raw, torch.tensor([0, 0]), box.repeat(2, 1), torch.tensor([1, 2]))) == pytest.approx(expected, rel=1e-9)
    twice = net.loss(raw.repeat(2, 1, 1, 1), torch.tensor([0, 1]), box.repeat(2, 1), torch.tensor([1, 1]))
    assert float(twice) == pytest.approx(expected, rel=1e-9)
    # the paper's confidence is taught the overlap, which is itself no way to lower the loss
    raw.requires_grad_()
    (gradient,) = torch.autograd.grad(net.loss(raw, torch.tensor([0]), box, torch.tensor([1])), raw)
    assert bool((gradient[0, 5:9, 1, 2] == 0).all()) and bool((gradient[0, [9, 12], 1, 2] != 0).all())


def test_yolo_binds_centres_to_their_cell_and_scales_its_anchors():
    net = ARCHITECTURES["yolo"](3, **TINY["yolo"])
    raw = torch.zeros(1, 16, 5, 7)
    raw[0, 8:, 2, 3] = torch.tensor([0, 9, math.log(2), 0, 7, 1, 2, 3])
    net.raw = lambda x: raw
    out = net(torch.zeros(1, 3, 40, 56))
    second = (2 * 7 + 3) * 2 + 1
    torch.testing.assert_close(out["boxes"][0, second], torch.tensor([28 - 20.0, 24 - 8.0, 28 + 20.0, 24 + 8.0]), atol=1e-2, rtol=0)
    assert out["objectness"][0, second] == 7 and out["logits"][0, second].tolist() == [1, 2, 3]


def test_the_loss_of_yolo_by_hand():
    net = ARCHITECTURES["yolo"](3, **TINY["yolo"]).double()
    raw = torch.zeros(1, 16, 5, 7, dtype=torch.float64)
    raw[0, 4::8] = -3.0
    raw[0, 8, 1, 3] = -3.0  # a neighbour's box comes near
    raw[0, 8:, 1, 2] = torch.tensor([0.3, -0.2, 0.1, 0.4, 1.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    box = torch.tensor([[12.0, 6.0, 30.0, 20.0]], dtype=torch.float64)  # centre (21, 13), sides 18 x 14: the second anchor's shape
    sigmoid = [1 / (1 + math.exp(-v)) for v in (0.3, -0.2)]
    off = (sigmoid[0] - 5 / 8) ** 2 + (sigmoid[1] - 5 / 8) ** 2 + (0.1 - math.log(18 / 20)) ** 2 + (0.4 - math.log(14 / 16)) ** 2
    place = (2 - 18 * 14 / (40 * 56)) * math.sqrt(off + 1e-8)
    kinds = sum(math.log1p(math.exp(v)) for v in (0.5, -2.0, -1.0))
    boxes = net.decoded(net.parts(raw)[..., :4]).reshape(-1, 4)
    mine = (1 * 7 + 2) * 2 + 1
    empty = sum(index != mine and float(each) <= 0.5 for index, each in enumerate(box_iou(boxes, box)[:, 0]))
    assert empty == 68  # the neighbour's is not held to be empty
    expected = place + kinds + math.log1p(math.exp(-1.0)) + empty * math.log1p(math.exp(-3.0))
    assert float(net.loss(raw, torch.tensor([0]), box, torch.tensor([1]))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", TINY)
def test_a_batch_without_objects_teaches_emptiness_only(name):
    net = ARCHITECTURES[name](3, **TINY[name])
    raw = torch.randn(2, net.head.out_channels, 5, 7, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.long)
    loss = net.loss(raw, nothing, torch.zeros(0, 4), nothing)
    (gradient,) = torch.autograd.grad(loss, raw)
    touched = [int(i) for i in torch.where(gradient.abs().sum((0, 2, 3)) > 0)[0]]
    assert touched == ([3, 4] if name == "yolo-v1" else [4, 12])


@pytest.mark.parametrize("name", TINY)
def test_the_loss_leads_to_the_boxes_it_was_given(name):
    """Gradient descent on the outputs themselves: what the loss asks for is what decoding gives."""
    net = ARCHITECTURES[name](3, **TINY[name]).eval()
    raw = torch.zeros(2, net.head.out_channels, 5, 7, requires_grad=True)
    owners, labels = torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1])
    boxes = torch.tensor([[3.0, 4, 22, 20], [30, 10, 54, 38], [20, 20, 29, 27]])
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        optimizer.zero_grad()
        net.loss(raw, owners, boxes, labels).backward()
        optimizer.step()
    net.raw = lambda x: raw.detach()
    out = net(torch.zeros(2, 3, 40, 56))
    scores = out["logits"].sigmoid() * out["objectness"].sigmoid()[..., None]
    for owner, box, label in zip(owners, boxes, labels, strict=True):
        best = scores[owner, :, label].argmax()
        assert float(scores[owner, best, label]) > 0.8
        assert float((out["boxes"][owner, best] - box).abs().max()) < 0.5


def test_anchors_are_clusters_of_shapes_not_of_lengths():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[10.0, 12.0], [40.0, 16.0], [60.0, 80.0]])
    sides = centres[torch.randint(3, (300,), generator=generator)] * (0.9 + 0.2 * torch.rand(300, 2, generator=generator))
    anchors = cluster_anchors(sides, 3)
    assert float((anchors / centres - 1).abs().max()) < 0.03
    # the mean overlap with the nearest anchor is not improved by moving one of them
    mean = shape_overlaps(sides, anchors).max(1).values.mean()
    for factor in (0.8, 1.25):
        moved = anchors.clone()
        moved[1] *= factor
        assert shape_overlaps(sides, moved).max(1).values.mean() < mean
    torch.testing.assert_close(
        shape_overlaps(torch.tensor([[4.0, 2.0]]), torch.tensor([[2.0, 4.0], [4.0, 2.0]])), torch.tensor([[1 / 3, 1.0]])
    )


@pytest.mark.parametrize("name", TINY)
def test_a_file_of_half_floats_is_small(name):
    assert sum(value.numel() for value in ARCHITECTURES[name](6).state_dict().values()) < 1_000_000
