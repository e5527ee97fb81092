"""Costs of networks whose cost is known."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import xaitools as xt
from tests import nets
from xaitools.adapters import SegmentationModel
from xaitools.adapters.flops import flops
from xaitools.metrics.cost import forward_flops, latencies, parameters, peak_memory, train_petaflop
from xaitools.types import Prediction
from xaitools.zoo import wrap

CLASSES = ("sky", "road")
IMAGE = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(0))


class BlackBox:
    task, classes, name = "segmentation", CLASSES, "box"

    def __init__(self, seconds=0.0):
        self.seconds, self.calls = seconds, 0

    def predict(self, images):
        self.calls += 1
        time.sleep(self.seconds)
        size = tuple(images.shape[-2:])
        return [Prediction(self.task, self.classes, size, torch.zeros(0), torch.zeros(0), semantic=torch.zeros(size)) for _ in images]


class Uncounted(nn.Module):
    """Adds and multiplies only, which torch's counter does not know."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 2, 1, 1))

    def forward(self, x):
        return x[:, :2] * self.gain


def test_a_convolution_by_hand():
    model = SegmentationModel(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), CLASSES)
    assert forward_flops(model, IMAGE) == 2 * 8 * 10 * (3 * 4 * 9 + 4 * 2)  # a multiply-add is two, biases are not counted
    assert parameters(model) == 3 * 4 * 9 + 4 + 4 * 2 + 2


def test_the_size_that_the_network_is_fed_counts():
    module = nn.Conv2d(3, 2, 1)
    large = wrap(module, task="segmentation", classes=CLASSES, size=(16, 20))
    assert forward_flops(large, IMAGE) == 4 * forward_flops(SegmentationModel(module, CLASSES), IMAGE)


def test_a_detector_is_counted_down_to_its_heads():
    model = nets.detector()
    backbone = SegmentationModel(nn.Conv2d(3, 2, 1), CLASSES)
    assert forward_flops(model, nets.picture()) > forward_flops(backbone, nets.picture())
    assert peak_memory(model, nets.picture()) > sum(each.nbytes for each in model.module.parameters()) / 1e6


@pytest.mark.parametrize("name", ["unet-scenes", "faster-rcnn-scenes", "yolo-scenes", "resnet-scenes", "torchvision:swin_t?weights=none"])
def test_operations_are_those_of_torchs_own_counter(name):
    model = xt.load_model(name)
    image = nets.picture(64, 96)[None].float()
    with FlopCounterMode(display=False) as theirs:
        model.predict(image)
    assert flops(lambda: model.predict(image)) == theirs.get_total_flops() > 1e6


def test_counting_leaves_other_threads_alone():
    """The hooks of torch's own counter broke relevance that another thread propagated meanwhile."""
    model, image = nets.segmenter(), nets.picture()
    alone = xt.explain(model, image, "top", "lrp").values
    with ThreadPoolExecutor(1) as other:
        meanwhile = []
        flops(lambda: meanwhile.append(other.submit(xt.explain, model, image, "top", "lrp").result()))
    assert torch.equal(meanwhile[0].values, alone)


def test_what_cannot_be_seen_is_none_and_not_zero():
    box, silent = BlackBox(), SegmentationModel(Uncounted(), CLASSES)
    assert (forward_flops(box, IMAGE), parameters(box), peak_memory(box, IMAGE)) == (None, None, None)
    assert forward_flops(silent, IMAGE) is None and parameters(silent) == 2
    assert train_petaflop(None, {"training": {"epochs": 3}}, 10) is None
    assert train_petaflop(10, None, 10) is None and train_petaflop(10, {"training": {}}, 10) is None
    assert train_petaflop(10**12, {"training": {"epochs": 5}}, 200) == pytest.approx(3.0)


class Chain(nn.Module):
    """Activations of known size: 400, then 100 channels, the first dropped or kept until the end; one in-place step."""

    def __init__(self, keep):
        super().__init__()
        self.wide, self.narrow, self.keep = nn.Conv2d(3, 400, 1, bias=False), nn.Conv2d(400, 100, 1, bias=False), keep
        self.last = nn.Conv2d(100, 300, 1, bias=False)

    def forward(self, x):
        x = self.wide(x)
        kept = x if self.keep else None
        x = self.narrow(x.relu_())
        x = self.last(x)
        return x[:, :2] + (0 if kept is None else kept[:, :2])


@pytest.mark.parametrize(("keep", "channels"), [(False, 500), (True, 800)])
def test_peak_memory_is_what_lives_at_one_time(keep, channels):
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = SegmentationModel(Chain(keep), CLASSES)
    weights = sum(each.nbytes for each in model.module.parameters())
    assert weights == 4 * (3 * 400 + 400 * 100 + 100 * 300)
    plane = 64 * 64 * 4
    least = (weights + channels * plane) / 1e6
    # beside the activations of the chain there are the image and its normalised copy
    assert least <= peak_memory(model, image) <= least + 10 * plane / 1e6
    assert peak_memory(model, image) == peak_memory(model, image)


def test_measuring_leaves_the_model_as_it_was():
    model = nets.segmenter()
    before = [(each.requires_grad, each.clone()) for each in model.module.parameters()]
    model.module.train()
    first = peak_memory(model, nets.picture()), forward_flops(model, nets.picture())
    assert (peak_memory(model, nets.picture()), forward_flops(model, nets.picture())) == first
    assert model.module.training
    assert all(
        each.requires_grad == flag and torch.equal(each, value)
        for each, (flag, value) in zip(model.module.parameters(), before, strict=True)
    )
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.module.modules())


def test_latencies_are_taken_side_by_side():
    models = {"quick": (BlackBox(0.002), IMAGE), "slow": (BlackBox(0.012), IMAGE)}
    found = latencies(models, rounds=5)
    assert found["quick"]["latency_ratio"] == 1 and found["quick"]["latency_n"] == 5
    assert found["quick"]["latency_ms"] >= 2 and found["slow"]["latency_ms"] >= 12  # no upper bounds: the machine may be busy
    assert found["slow"]["latency_ratio"] > 1.2
    assert [model.calls for model, _ in models.values()] == [6, 6]
    low, high = found["slow"]["quartiles_ms"]
    assert low <= found["slow"]["latency_ms"] <= high
