"""Receptive fields against the textbook's arithmetic and against what a gradient of positive weights reaches, cell by cell."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.nets import CLASSES, detector, picture, segmenter
from xaitools.adapters import ClassificationModel, Fit, as_found
from xaitools.attribution.layers import map_at
from xaitools.attribution.receptive_field import receptive_fields
from xaitools.types import Decision

FIRST = Decision("class:disc", 1)


class Body(nn.Module):
    """``body`` gives the maps; a mean and a linear layer follow."""

    def __init__(self, *body: nn.Module, channels: int = 2) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(*body), nn.Linear(channels, len(CLASSES))

    def forward(self, x):
        return self.last(self.body(x).mean((2, 3)))


def conv(before, after, kernel, **options):
    return nn.Conv2d(before, after, kernel, **options)


CHAIN = [(3, 1, 1, 1), (2, 2, 0, 1), (5, 2, 2, 1), (3, 2, 1, 1), (3, 1, 0, 2)]
"""(kernel, stride, padding, dilation): convolution, pool, convolution, pool, convolution."""


def chain():
    return Body(
        conv(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4, 5, stride=2, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1),
        conv(4, 2, 3, dilation=2),
    )  # fmt: skip


@pytest.mark.parametrize("size", [(61, 90), (64, 64)])
def test_a_chain_of_windows_is_the_textbooks_arithmetic(size):
    """Start, jump and size of the field (Dumoulin and Visin 2016; Araujo et al. 2019, equations 2 to 4), clipped to the image."""
    start, jump, field = 0, 1, 1
    for kernel, stride, padding, dilation in CHAIN:
        start, field, jump = start - padding * jump, field + (kernel - 1) * dilation * jump, jump * stride
    model = ClassificationModel(chain(), CLASSES)
    rows, columns, why = receptive_fields(model, picture(*size)[None], "body", FIRST)
    assert why == "" and len(rows) > 3
    for found, side in zip((rows, columns), size, strict=True):
        expected = [(max(0, start + jump * cell), min(side, start + jump * cell + field)) for cell in range(len(found))]
        assert found.tolist() == [list(each) for each in expected]
        assert found[0][0] == 0 and found[0][1] < field and any(last - first == field for first, last in found)


def reached(model, size, layer, decision):
    """Of each row and column of the layer the pixels that a gradient reaches, when all weights are positive and pools are means."""
    for parameter in model.module.parameters():
        parameter.data = parameter.data.abs() + 0.01
    x = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    held = []
    hook = model.module.get_submodule(layer).register_forward_hook(lambda module, inputs, out: held.append(out))
    model.score_pairs(x, [(0, decision)])
    hook.remove()
    rows, columns = [], []
    for axis, (into, count) in enumerate(zip((rows, columns), held[0].shape[-2:], strict=True)):
        for cell in range(count):
            line = held[0].select(2 + axis, cell).sum()
            seen = torch.autograd.grad(line, x, retain_graph=True)[0][0].sum((0, 2 - axis)).nonzero()
            into.append([int(seen[0]), int(seen[-1]) + 1] if len(seen) else None)
    return rows, columns


@pytest.mark.parametrize(
    ("body", "fit"),
    [
        ([conv(3, 4, 3, stride=2), nn.AvgPool2d(3, 2, 1), nn.ReLU(), conv(4, 2, 3, groups=2, padding=2)], None),
        ([conv(3, 4, 5, stride=3), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), conv(4, 2, (1, 3))], None),
        ([conv(3, 4, 3, stride=2), nn.Upsample(scale_factor=2), conv(4, 2, 3, padding=1)], None),
        ([conv(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d((5, 4)), conv(4, 2, 1)], None),
        ([conv(3, 2, 3, stride=4, padding=1)], Fit(multiple=32)),
        ([conv(3, 2, 3, stride=4, padding=1)], Fit(size=(24, 60))),
        ([conv(3, 2, 3, stride=4, padding=1)], Fit(shorter=48, crop=(32, 32))),
        ([conv(3, 2, 3, stride=4, padding=1)], Fit(crop=(48, 64))),
    ],
)
def test_no_pixel_that_a_gradient_can_reach_is_missing_and_none_is_added(body, fit):
    size = (45, 38)
    model = ClassificationModel(Body(*body).double(), CLASSES, fit=fit)
    with as_found(model):
        expected = reached(model, size, "body", FIRST)
        *found, why = receptive_fields(model, torch.rand(1, 3, *size).double(), "body", FIRST)
    assert why == ""
    for mine, theirs in zip(found, expected, strict=True):
        assert [list(each) if each[0] < each[1] else None for each in mine.tolist()] == theirs


def test_with_dilation_only_the_border_has_pixels_too_many():
    """Between its taps a dilated kernel skips pixels; where a tap lies in the padding the next begins further inside."""
    model = ClassificationModel(Body(conv(3, 2, 3, dilation=3, padding=2)).double(), CLASSES)
    with as_found(model):
        expected = reached(model, (45, 38), "body", FIRST)
        *found, _ = receptive_fields(model, torch.rand(1, 3, 45, 38).double(), "body", FIRST)
    for mine, theirs in zip(found, map(np.array, expected), strict=True):
        assert (mine[2:-2] == theirs[2:-2]).all()
        assert (mine[:, 0] <= theirs[:, 0]).all() and (mine[:, 1] >= theirs[:, 1]).all() and (mine != theirs).any()


def test_a_gate_over_the_whole_map_sees_the_whole_image():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.gate = conv(3, 2, 3), conv(2, 2, 1)

        def forward(self, x):
            maps = self.maps(x)
            return maps * torch.sigmoid(self.gate(maps.mean((2, 3), keepdim=True)))

    model = ClassificationModel(Body(Gated()), CLASSES)
    for layer, whole in (("body", True), ("body.0.maps", False)):
        rows, columns, why = receptive_fields(model, picture(20, 26)[None], layer, FIRST)
        assert why == "" and ((rows == [0, 20]).all() and (columns == [0, 26]).all()) == whole


def test_what_cannot_be_traced_sees_the_whole_image_and_says_so():
    class Wavering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = conv(3, 2, 3)

        def forward(self, x):
            return self.one(x) if float(x.mean()) > 0.1 else self.one(-x)

    rows, columns, why = receptive_fields(ClassificationModel(Body(Wavering()), CLASSES), picture(20, 26)[None], "body", FIRST)
    assert why and "\n" not in why
    assert np.array_equal(rows, np.tile([0, 20], (18, 1))) and np.array_equal(columns, np.tile([0, 26], (24, 1)))


@pytest.mark.parametrize(("model", "layer", "size"), [(segmenter(), "down.0", (40, 52)), (detector(), "backbone.smooth", (80, 120))])
def test_nothing_of_a_map_comes_from_outside_its_field(model, layer, size):
    box = torch.tensor([0.0, 0.0, size[1], size[0]])
    decision = Decision("class:disc", 0, box=box, proposal=box)
    with as_found(model):
        x = model.normalise(picture(*size)[None]).requires_grad_()
        rows, columns, why = receptive_fields(model, x, layer, decision)
        assert why == ""
        maps = map_at(model, x, layer, decision)
        small = 0
        for row, column in ((0, 0), (len(rows) // 2, len(columns) // 2), (len(rows) - 1, len(columns) - 1)):
            gradient = torch.autograd.grad(maps[0, :, row, column].sum(), x, retain_graph=True)[0][0]
            (top, bottom), (left, right) = rows[row], columns[column]
            inside = F.pad(torch.ones(bottom - top, right - left), (left, size[1] - right, top, size[0] - bottom))
            assert bool((gradient[:, inside == 0] == 0).all()) and bool(gradient.any())
            small += (bottom - top) * (right - left) < size[0] * size[1]
        assert small
