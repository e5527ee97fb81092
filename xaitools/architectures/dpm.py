"""DPM (Felzenszwalb, Girshick, McAllester and Ramanan 2010): a coarse template of an object, and its parts seen twice as fine.

A class is a mixture of components.  Each has a root filter over histograms of oriented gradients (HOG), and part
filters that may leave their place at a cost quadratic in the displacement; a hypothesis scores what its filters answer
less what its parts pay (equation 2).  A black box to gradients: it answers with final boxes.
Where we differ: of the features of section 6.2 those 9 + 4 that do not tell light on dark from dark on light; parts
move within ``reach`` cells, so the best place is found by trying all of them and not by a generalised distance
transform; boxes are predicted from where the parts are as in section 7.1, but by their displacements from the root; a
logistic function of the score (Platt 1999) makes it a number in [0, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from .base import ARCHITECTURES

ORIENTATIONS = 9
CHANNELS = ORIENTATIONS + 4
TRUNCATION = 0.2
NOISE = 0.02
"""Added to the energy of a block of cells before it is divided by, so that plain areas stay plain (images in [0, 1])."""


def hog(image: Tensor, cell: int) -> Tensor:
    """(3, H, W) in [0, 1] -> (13, H // cell, W // cell): of a cell 9 orientations, then how rough it is beside each of 4 blocks."""
    return normalised(histograms(image, cell))


def histograms(image: Tensor, cell: int) -> Tensor:
    """(9, rows, columns): how strong edges of each orientation are; a pixel is shared among the four cells around it (section 6.1).

    The gradient is that of the channel where it is strongest, so a colour counts only where it changes.
    """
    x = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    right, down = x[:, 1:-1, 2:] - x[:, 1:-1, :-2], x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
    strongest = (right.square() + down.square()).max(0, keepdim=True).indices
    right, down = right.gather(0, strongest), down.gather(0, strongest)
    orientation = (torch.atan2(down, right) * (ORIENTATIONS / torch.pi)).round().long() % ORIENTATIONS
    each = image.new_zeros(ORIENTATIONS, *image.shape[1:]).scatter_(0, orientation, torch.hypot(right, down))
    return _shares(image.shape[1], cell, each) @ each @ _shares(image.shape[2], cell, each).T


def _shares(pixels: int, cell: int, like: Tensor) -> Tensor:
    """(cells, pixels): the share of a cell in a pixel, 1 at the cell's middle and 0 at the middle of the next."""
    place = (torch.arange(pixels).to(like) + 0.5) / cell - 0.5
    return (1 - (place - torch.arange(pixels // cell).to(like)[:, None]).abs()).clamp(min=0)


def normalised(histograms: Tensor) -> Tensor:
    """(9, h, w) -> (13, h, w): divided by the energy of each of the four 2x2 blocks around a cell, truncated, and summed.

    The sums are over blocks for each orientation and over orientations for each block (section 6.2), as products
    with unit vectors.
    """
    energy = F.pad(histograms.square().sum(0)[None], (1, 1, 1, 1), mode="replicate")
    scale = (4 * F.avg_pool2d(energy, 2, 1)[0] + NOISE).rsqrt()
    blocks = torch.stack([scale[:-1, :-1], scale[:-1, 1:], scale[1:, :-1], scale[1:, 1:]])
    all36 = (histograms[:, None] * blocks).clamp(max=TRUNCATION)
    return torch.cat([all36.sum(1) / 2, all36.sum(0) / 3])


class Level(NamedTuple):
    """One level of the pyramid: features for roots (C, h, w), for parts at twice the resolution, pixels of the image to a root cell."""

    root: Tensor
    part: Tensor
    stride: tuple[float, float]  # down, right


class Places(NamedTuple):
    """Root placements of M hypotheses on one level: component, row and column, each (M,)."""

    component: Tensor
    row: Tensor
    column: Tensor


@ARCHITECTURES.register("dpm")
class DPM(nn.Module):
    """(N, 3, H, W) -> of each image a dict of boxes (D, 4) xyxy in pixels of the input, labels (D,) from 0 and scores (D,).

    components   of each class
    side         the most rows or columns of a root, in cells; ``extent`` holds the rows and columns in use
    parts, part  how many parts a component has, and the side of each in cells of twice the resolution
    reach        how far a part may move, in those cells
    cell         pixels of a cell; the finest level for roots enlarges the image by ``finest``, ``octave`` levels halve it
    """

    extent: Tensor
    anchor: Tensor

    def __init__(
        self,
        classes: int,
        components: int = 5,
        side: int = 8,
        parts: int = 5,
        part: int = 4,
        reach: int = 3,
        cell: int = 4,
        octave: int = 3,
        finest: float = 1.6,
        score_threshold: float = 0.05,
        nms: float = 0.5,
        most: int = 100,
    ) -> None:
        super().__init__()
        self.classes, self.components, self.side, self.part, self.reach = classes, components, side, part, reach
        self.cell, self.octave, self.finest = cell, octave, finest
        self.score_threshold, self.nms, self.most = score_threshold, nms, most
        count = classes * components
        self.root = nn.Parameter(0.1 * torch.randn(count, CHANNELS, side, side))
        self.bias = nn.Parameter(torch.zeros(count))
        self.parts = nn.Parameter(0.1 * torch.randn(count, parts, CHANNELS, part, part))
        self.deformation = nn.Parameter(torch.tensor([0, 0, 0.1, 0.1]).repeat(count, parts, 1))
        """Costs of dy, dx, dy * dy, dx * dx."""
        self.frame = nn.Parameter(torch.zeros(count, 2 * parts + 1, 4))
        """Shares of the root's sides by which each side of the box lies off the root's: from displacements and 1."""
        self.platt = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(classes, 1))
        self.register_buffer("extent", torch.full((count, 2), side))
        self.register_buffer("anchor", torch.zeros(count, parts, 2, dtype=torch.long))

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [self.detect(image) for image in x]

    def detect(self, image: Tensor) -> dict[str, Tensor]:
        """What is left of the hypotheses after threshold and suppression within each class (section 7.2)."""
        found = [self.found(level) for level in self.pyramid(image)]
        boxes, labels, scores = (torch.cat(each) for each in zip(*found, strict=True))
        height, width = image.shape[1:]
        boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
        keep = batched_nms(boxes, scores, labels, self.nms)[: self.most]
        return {"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]}

    def found(self, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (D, 4), labels (D,) and scores (D,) of a level, before suppression."""
        answers = self.answers(level)
        slope, shift = self.platt.repeat_interleave(self.components, 0).T[:, :, None, None]
        scores = (slope * self.scores(level, answers) + shift).sigmoid()
        places = Places(*torch.where(scores > self.score_threshold))
        boxes = self.boxes(self.roots(level, places), places, self.displacements(places, answers))
        return boxes, places.component // self.components, scores[places]

    def only(self, label: int, *, parts: bool = True) -> DPM:
        """The detector of one class alone, perhaps without its parts; its numbers are those of this one, not a copy."""
        one = copy.deepcopy(self)
        one.classes = 1
        for name, tensor in self.state_dict().items():
            share = tensor.unflatten(0, (self.classes, -1))[label]
            if not parts and name in ("parts", "deformation", "anchor", "frame"):
                share = share[:, -1:] if name == "frame" else share[:, :0]
            setattr(one, name, nn.Parameter(share) if name in one._parameters else share)
        return one

    # ---- the pyramid

    def pyramid(self, image: Tensor) -> list[Level]:
        """Levels from fine to coarse, an octave at least, to where the image is no larger than a root."""
        height, width = image.shape[1:]
        scales = [2 * self.finest * 2 ** (-step / self.octave) for step in range(2 * self.octave)]
        while min(height, width) * scales[-1] * 2 ** (-1 / self.octave) >= self.cell * self.side:
            scales.append(scales[-1] * 2 ** (-1 / self.octave))
        least = 2 * self.cell
        sizes = [(max(least, round(height * scale)), max(least, round(width * scale))) for scale in scales]
        maps = [hog(_scaled(image, size), self.cell) for size in sizes]
        levels = []
        for part, root, size in zip(maps, maps[self.octave :], sizes[self.octave :], strict=False):
            stride = height * self.cell / size[0], width * self.cell / size[1]
            levels.append(Level(F.pad(root, (self.pad,) * 4), F.pad(part, (2 * self.pad,) * 4), stride))
        return levels

    @property
    def pad(self) -> int:
        """Empty cells around the features for roots, for objects that the image cuts off."""
        return (self.side - 1) // 2

    # ---- scores

    def answers(self, level: Level) -> Tensor:
        """Of each part filter (K, P, H, W), at every place of its upper left corner; -inf for ``reach`` cells around them."""
        if not self.parts.numel():
            return level.part.new_empty(self.parts.shape[:2] + level.part.shape[1:])
        beyond = F.pad(level.part, (0, self.part - 1, 0, self.part - 1))
        answers = F.conv2d(beyond[None], self.parts.flatten(0, 1))[0]
        return F.pad(answers, (self.reach,) * 4, value=-torch.inf).unflatten(0, self.parts.shape[:2])

    def scores(self, level: Level, answers: Tensor) -> Tensor:
        """(K, h, w): equation 2 with every part where it is best, at each place of the root's upper left corner."""
        scores = F.conv2d(level.root[None], self.root, self.bias)[0]
        if not answers.numel():
            return scores
        rows, columns = (2 * length - 1 + 2 * self.reach for length in scores.shape[1:])
        corners = self.anchor.flatten(0, 1).tolist()
        anchored = [answer[y : y + rows, x : x + columns] for answer, (y, x) in zip(answers.flatten(0, 1), corners, strict=True)]
        best = best_nearby(torch.stack(anchored), self.deformation.flatten(0, 1), self.reach)
        return scores + best.unflatten(0, answers.shape[:2]).sum(1)

    def displacements(self, places: Places, answers: Tensor) -> Tensor:
        """(M, P, 2): how many cells below and right of its anchor each part is best."""
        rows, columns = self.corners(places)
        span = torch.arange(2 * self.reach + 1)
        part = torch.arange(answers.shape[1])[:, None, None]
        component = places.component[:, None, None, None]
        down, right = prices(self.deformation, self.reach)
        near = answers[component, part, rows[..., None, None] + span[:, None], columns[..., None, None] + span]
        costs = down[..., :, None] + right[..., None, :]
        best = (near - costs[places.component]).flatten(2).argmax(2)
        return torch.stack([best // len(span), best % len(span)], 2) - self.reach

    def corners(self, places: Places) -> tuple[Tensor, Tensor]:
        """Rows and columns (M, P) of the anchors of the parts, in cells of twice the resolution."""
        anchor = self.anchor[places.component]
        return 2 * places.row[:, None] + anchor[..., 0], 2 * places.column[:, None] + anchor[..., 1]

    # ---- boxes

    def roots(self, level: Level, places: Places) -> Tensor:
        """xyxy (M, 4) of the roots in pixels of the image."""
        corner = torch.stack([places.column, places.row], 1) - self.pad
        down, right = level.stride
        return torch.cat([corner, corner + self.extent[places.component].flip(1)], 1) * self.root.new_tensor([right, down, right, down])

    def boxes(self, roots: Tensor, places: Places, displacements: Tensor) -> Tensor:
        """xyxy (M, 4) in the unit of ``roots`` (M, 4), moved by what the displacements (M, P, 2) tell (section 7.1)."""
        offsets = torch.einsum("mf,mfs->ms", framing(displacements).to(roots), self.frame[places.component])
        return roots + offsets * (roots[:, 2:] - roots[:, :2]).repeat(1, 2)


def framing(displacements: Tensor) -> Tensor:
    """(M, 2P + 1): the numbers that predict a box, displacements (M, P, 2) and a 1."""
    return F.pad(displacements.flatten(1), (0, 1), value=1)


def prices(deformation: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Costs (..., 2 reach + 1) of going down and of going right, from (..., 4); what a displacement costs is their sum."""
    steps = torch.arange(-reach, reach + 1).to(deformation)
    down, right, down2, right2 = deformation[..., None].unbind(-2)
    return down * steps + down2 * steps**2, right * steps + right2 * steps**2


def best_nearby(answers: Tensor, deformation: Tensor, reach: int) -> Tensor:
    """(F, h, w) from answers (F, 2h - 1 + 2 reach, 2w - 1 + 2 reach): at every other place the best within reach, less its cost.

    Section 3.2, at the places of roots only.  Since the cost is a sum, the best is sought along columns, then rows.
    """
    down, right = prices(deformation, reach)
    across = _best([answers[..., step : answers.shape[2] - 2 * reach + step : 2] for step in range(2 * reach + 1)], right)
    return _best([across[:, step : answers.shape[1] - 2 * reach + step : 2] for step in range(2 * reach + 1)], down)


def _best(shifted: Sequence[Tensor], price: Tensor) -> Tensor:
    """The largest of answers (F, h, w), each less its column of the price (F, number of them)."""
    best = shifted[0] - price[:, 0, None, None]
    for step, each in enumerate(shifted[1:], 1):
        best = torch.maximum(best, each - price[:, step, None, None])
    return best


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if tuple(image.shape[1:]) == size else F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
