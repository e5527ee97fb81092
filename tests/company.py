"""Red, green and blue rectangles on grey, and models of which it is known how much the red ones lean on the green ones.

The ground is flat, so that what is painted over is exactly grey, and every fall is a closed form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import xaitools as xt
from xaitools.types import Sample

KINDS = ("red", "green", "blue")
HEIGHT, WIDTH, GROUND, BRIGHT = 48, 56, 0.5, 0.9
LEAN = 40.0
CELLS = ((2, 3), (2, 33), (27, 3), (27, 33))
SIDES = (8, 10, 12)
"""Of an object, each as often as the others."""


class Company:
    """Red with green, red with blue, or red alone, in turn; green and blue are never seen together."""

    name, task = "company", "detection"
    classes: tuple[str, ...] = KINDS
    semantic_classes: tuple[str, ...] = ("background", *KINDS)
    things = frozenset(KINDS)

    def __init__(self, n: int = 6, *, annotation: str = "masks") -> None:
        self.annotation, self.ids = annotation, [f"company-{index:03d}" for index in range(n)]
        if annotation != "masks":
            self.name = f"company-{annotation}"
        if annotation == "label":
            self.task, self.semantic_classes, self.things = "classification", (), frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    def masks(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        cells, sides = torch.randperm(4, generator=generator).tolist(), torch.randint(3, (3, 2), generator=generator)
        found = {}
        for slot, kind in enumerate((("red", "green"), ("red", "blue"), ("red",))[index % 3]):
            mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
            (top, left), (tall, wide) = CELLS[cells[slot]], (SIDES[each] for each in sides[KINDS.index(kind)].tolist())
            mask[top : top + tall, left : left + wide] = True
            found[kind] = mask
        return found

    def __getitem__(self, index: int) -> Sample:
        masks = self.masks(index)
        image = torch.full((3, HEIGHT, WIDTH), GROUND)
        semantic = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
        for kind, mask in masks.items():
            image[KINDS.index(kind), mask] = BRIGHT
            semantic[mask] = KINDS.index(kind) + 1
        stacked = torch.stack(list(masks.values()))
        truth: dict[str, Any] = {"label": 0}
        if self.annotation != "label":
            edges = [[torch.where(mask.any(axis))[0] for axis in (0, 1)] for mask in stacked]
            truth |= {
                "boxes": torch.tensor([[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in edges]).float(),
                "labels": torch.tensor([KINDS.index(kind) for kind in masks]),
            }
        if self.annotation == "masks":
            truth |= {"masks": stacked, "semantic": semantic}
        return Sample(self.ids[index], image, **truth)


def lean(area: float) -> float:
    """What a red thing loses with green objects of so many pixels."""
    return LEAN * (BRIGHT - GROUND) * area / (HEIGHT * WIDTH)


def company_of(x: Tensor) -> Tensor:
    """(N,): how much green there is."""
    return LEAN * (x[:, 1] - GROUND).mean((1, 2))


class Segments(nn.Module):
    """Each class by its own channel; red gains everywhere by the green of the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        logits = 8 * (x - 0.7)
        red = logits[:, 0] + company_of(x)[:, None, None]
        return torch.stack([torch.zeros_like(red), red, logits[:, 1], logits[:, 2]], 1)


class Boxes(nn.Module):
    """One box a class around its bright pixels, before suppression or, as a black box, after it."""

    def __init__(self, *, final: bool = False) -> None:
        super().__init__()
        self.final = final

    def forward(self, x: Tensor) -> Any:
        boxes, logits = torch.zeros(len(x), 3, 4), torch.full((len(x), 3, 3), -9.0)
        for row, image in enumerate(x):
            for kind in range(3):
                across, down = (torch.where((image[kind] > 0.7).any(axis))[0] for axis in (0, 1))
                if len(across):
                    boxes[row, kind] = torch.tensor([across[0], down[0], across[-1] + 1, down[-1] + 1])
                    logits[row, kind, kind] = 1.0
        logits[:, 0, 0] += company_of(x)
        if not self.final:
            return {"boxes": boxes, "logits": logits}
        there = logits.diagonal(dim1=1, dim2=2) > -5
        return [
            {"boxes": place[seen], "labels": torch.arange(3)[seen], "scores": logit.diagonal()[seen].sigmoid()}
            for place, logit, seen in zip(boxes, logits, there, strict=True)
        ]


class Whole(nn.Module):
    """Says red of the image, by its green."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([3 + company_of(x), x[:, 1].mean((1, 2)), x[:, 2].mean((1, 2))], 1)


def segmenter() -> Any:
    return xt.wrap(Segments(), task="segmentation", classes=["background", *KINDS], background="first", name="segments")


def detector(*, final: bool = False) -> Any:
    return xt.wrap(Boxes(final=final), task="detection", classes=list(KINDS), background="none", name="boxes")


def classifier() -> Any:
    return xt.wrap(Whole(), task="classification", classes=list(KINDS), name="whole")
