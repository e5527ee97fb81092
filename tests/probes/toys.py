"""Drawn images with a planted cue, and models made by hand that read the object, the background, or nothing."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from xaitools.adapters import SegmentationModel
from xaitools.data.objects import extents
from xaitools.errors import DataError
from xaitools.types import Prediction, Sample

KINDS = ("disc", "square")
CLASSES = ("background", *KINDS)
SIDE = 32
BACKGROUNDS = torch.tensor([[0.6, 0.2, 0.1], [0.1, 0.2, 0.6]]).view(2, 3, 1, 1)
OBJECTS = torch.tensor([[0.2, 0.95, 0.3], [0.7, 0.95, 0.3]]).view(2, 3, 1, 1)


class Shapes:
    """One disc or square an image, with ``company`` also a small one of the other kind in a corner far from it.

    ``tied``: red backgrounds behind discs, blue ones behind squares; else any.
    """

    task = "detection"
    classes = KINDS
    semantic_classes = CLASSES
    things = frozenset(KINDS)

    def __init__(
        self, n: int = 12, *, tied: bool = True, broken: Collection[int] = (), masks: bool = True, kinds: int = 2, company: bool = False
    ) -> None:
        self.name, self.tied, self.broken, self.masks, self.kinds = f"shapes-{n}", tied, broken, masks, kinds
        self.company = company
        self.ids = [f"shape-{index:03d}" for index in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError(f"{self.ids[index]}: the picture is cut short")
        generator = torch.Generator().manual_seed(index)
        kind = index % self.kinds
        ground = kind if self.tied else int(torch.randint(2, (), generator=generator))
        masks, kinds = self._mask(kind, generator)[None], [kind]
        if self.company:
            masks, kinds = torch.cat([masks, self._corner(masks[0])]), [kind, 1 - kind]
        image = BACKGROUNDS[ground].expand(-1, SIDE, SIDE)
        for mask, each in zip(masks, kinds, strict=True):
            image = torch.where(mask, OBJECTS[each], image)
        image = image + 0.04 * torch.rand(3, SIDE, SIDE, generator=generator)
        labels = torch.tensor(kinds)
        return Sample(
            self.ids[index], image, semantic=(masks * (labels + 1)[:, None, None]).sum(0) if self.masks else None,
            boxes=torch.tensor(extents(masks)).float(), labels=labels, masks=masks if self.masks else None, tags={"ground": ground},
        )  # fmt: skip

    @staticmethod
    def _corner(mask: Tensor) -> Tensor:
        """(1, H, W): a square of 4 pixels in the free half."""
        corner = torch.zeros_like(mask)
        corner[-4:, -4:] = True
        return (corner if bool(mask[: SIDE // 2].sum() > mask[SIDE // 2 :].sum()) else corner.flip(0))[None]

    @staticmethod
    def _mask(kind: int, generator: torch.Generator) -> Tensor:
        y, x = (8 + 14 * torch.rand(2, generator=generator)).round().tolist()
        rows, columns = torch.arange(SIDE)[:, None] - y, torch.arange(SIDE)[None] - x
        return rows**2 + columns**2 <= 36 if kind == 0 else (rows.abs() <= 5) & (columns.abs() <= 5)


class Reader(nn.Module):
    """Finds objects by their green; names them by their own red (``cue="object"``) or by the image's border."""

    def __init__(self, cue: str) -> None:
        super().__init__()
        self.cue = cue
        self.gain = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        objectness = self.gain * (x[:, 1] - 0.7)
        if self.cue == "object":
            side = self.gain * (0.45 - x[:, 0])
        else:
            border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2).mean(2)
            side = (self.gain * (border[:, 0] - border[:, 2])).view(-1, 1, 1).expand_as(objectness)
        return torch.stack([-objectness, objectness + side, objectness - side], 1)


def reader(cue: str) -> SegmentationModel:
    return SegmentationModel(Reader(cue), CLASSES, background=0, name=f"{cue}-reader")


class Boxes:
    """A detector without gradients: one box around what is green, named by its red."""

    task, classes, name = "detection", KINDS, "boxes"

    def predict(self, images: Tensor) -> list[Prediction]:
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> Prediction:
        green = image[1] > 0.7
        rows, columns = torch.where(green.any(1))[0], torch.where(green.any(0))[0]
        count = int(len(rows) > 0)
        box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float() if count else torch.zeros(0, 4)
        label = torch.tensor([int(image[0][green].mean() > 0.45)] if count else [], dtype=torch.int64)
        return Prediction("detection", KINDS, (SIDE, SIDE), label, torch.full((count,), 0.9), boxes=box)
