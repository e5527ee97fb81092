"""Whole networks, ours and torchvision's, against the plain propagation: every rule, from the picture to the score."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attribution.kernels import recorded
from tests.attribution.plain_propagation import Run, propagate, run
from tests.detectors import CLASSES, DETECTORS, model_of
from tests.nets import picture, settled
from xaitools.adapters import PlainDetector
from xaitools.architectures import ARCHITECTURES
from xaitools.attribution.lrp import COMPOSITES, composite, layer_names, relevance
from xaitools.targets import bind

EQUAL = 1e-8
SIDE = 16
Example = tuple[Callable[[Tensor], Tensor], Tensor, Any, Run]

SEEDS = {"unet": 2, "segnet": 1, "deconvnet": 2, "deeplabv3plus": 5}  # relevance arrives at the image under every rule
SEGMENTERS: dict[str, dict[str, Any]] = {
    "unet": dict(base=2, depth=2, widest=4),
    "segnet": dict(widths=(3, 4, 5, 5)),
    "deconvnet": dict(widths=(2, 3, 4, 4), hidden=6),
    "pspnet": dict(widths=(4, 4, 8, 8)),
    "deeplabv3plus": dict(widths=(2, 3, 4, 4), pyramid=4, low=2),
}


def segmenter(name: str) -> tuple[Callable[[Tensor], Tensor], Tensor, Any]:
    """A region's mean, and one class against another over its rest."""
    net = settled(ARCHITECTURES[name](3, **SEGMENTERS[name]), SEEDS.get(name, 0)).double()
    region = picture(SIDE, SIDE, seed=2)[0] > 0.5

    def scores(x: Tensor) -> Tensor:
        logits = net(x)[0]
        return torch.stack([(logits[1] * region).sum() / region.sum(), ((logits[2] - logits[0]) * ~region).mean()])

    return scores, 2 * picture(SIDE, SIDE)[None].double() - 1, layer_names(net)


def detector(name: str) -> tuple[Callable[[Tensor], Tensor], Tensor, Any]:
    """A box's class, an edge (which YOLO's exponent forbids), a mask; the boxes are those that the detector itself found."""
    if name == "yolo":
        net = settled(ARCHITECTURES["yolo"](3, widths=((3,), (4,), (4,)))).double()
        model: Any = PlainDetector(net, CLASSES, background="none", score_threshold=0.0)
        image, targets = picture(SIDE, SIDE)[None].double(), ["box:0", "box:1"]
    else:
        model = model_of(DETECTORS[name]())
        image, targets = picture(10, 12)[None].double(), ["box:0", "box:1:left"]
        resize = model.module.transform
        resize.min_size, resize.max_size, resize.size_divisible = (12,), SIDE, 8
    prediction = model.predict(image)[0]
    decisions = [bind(target, prediction) for target in (targets if prediction.cells is None else [*targets, "mask:0"])]
    model.module.eval()
    return lambda x: model.scores_from(x, decisions), model.normalise(image), model.parameter_names()


@lru_cache(maxsize=1)  # its matrices are large
def prepared(name: str) -> Example:
    scores, x, names = (segmenter if name in SEGMENTERS else detector)(name)
    steps = recorded(scores, x)
    with torch.no_grad():
        return scores, x, names, run(steps, x)


QUICK = {("yolo", "lrp-alpha2beta1")}
WHOLE = [*SEGMENTERS, "faster-rcnn", "faster-rcnn-frozen", "mask-rcnn", "fast-rcnn", "yolo"]


@pytest.mark.filterwarnings("ignore:biases are ignored")
@pytest.mark.parametrize("biases", ["absorb", "ignore"])
@pytest.mark.parametrize(
    ("name", "rules"),
    [
        pytest.param(name, rules, marks=[] if (name, rules) in QUICK else [pytest.mark.long, pytest.mark.timeout(1200)])
        for name in WHOLE
        for rules in COMPOSITES
    ],
)
def test_a_whole_network_agrees_with_the_plain_propagation(name: str, rules: str, biases: str) -> None:
    scores, x, names, plain_run = prepared(name)
    settings = dict(epsilon=1e-3, gamma=0.4, alpha=1.5, beta=0.5, low=-3.0, high=3.5)
    with torch.no_grad():
        expected_scores, expected = propagate(plain_run, rules, biases=biases == "absorb", **settings)
    ours = relevance(scores, x, composite(rules, biases=biases, **settings), names)
    for mine, score, plain in zip(ours, expected_scores, expected, strict=True):
        assert mine.score == pytest.approx(float(score), rel=1e-12)
        assert float((mine.values - plain).abs().max()) <= EQUAL * float(plain.abs().max())
    assert bool(expected.any()), "nothing arrives, so nothing was compared"
