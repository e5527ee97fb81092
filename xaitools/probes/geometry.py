"""Moving an image together with all that is known about it, and laying a moved object on another image.

A move is a matrix (3, 3) from places in the old image to places in the new one, in pixel edges: the middle of the first
pixel is (0.5, 0.5).  Images are sampled bilinearly; masks and maps take the value of the pixel that a new pixel's middle
comes from, so image and truth move by the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..data.objects import areas, extents
from ..errors import XaiError
from ..types import IGNORE, Sample

VISIBLE = 0.25
"""An object of which less than this share stays in view is ignored: neither found nor missed counts."""

FILLS = ("mean", "reflect")
HULLS = ("hull", "ellipse")

Matrix = NDArray[np.float64]


class Grid(NamedTuple):
    """Where each pixel of a new image (H, W) comes from: ``places`` (H, W, 2) xy in pixel edges of the old one, ``inside`` (H, W)."""

    places: Tensor
    inside: Tensor

    @classmethod
    def of(cls, matrix: Matrix, size: Sequence[int], old: Sequence[int] | None = None) -> Grid:
        """``size`` and ``old`` are the (H, W) of the new and the old image, by default of one size."""
        height, width = old or size
        y, x = torch.meshgrid(*(torch.arange(length, dtype=torch.float64) + 0.5 for length in size), indexing="ij")
        back = torch.from_numpy(np.linalg.inv(matrix))
        u, v, w = (row[0] * x + row[1] * y + row[2] for row in back)
        u, v = u / w + 1e-9, v / w + 1e-9  # a place on the edge of two pixels belongs to the second, whatever the rounding
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (w > 0)
        return cls(torch.stack([u, v], -1), inside)

    def image(self, image: Tensor) -> Tensor:
        """(C, H, W) bilinear; what comes from outside is mirrored at the edge."""
        height, width = image.shape[-2:]
        unit = (self.places * torch.tensor([2 / width, 2 / height]) - 1).to(image)
        return F.grid_sample(image[None], unit[None], mode="bilinear", padding_mode="reflection", align_corners=False)[0].clamp(0, 1)

    def nearest(self, values: Tensor, outside: int | bool) -> Tensor:
        """(..., H, W) of a mask or map, ``outside`` where nothing comes from."""
        x, y = (self.places[..., axis].floor().long().clamp(0, values.shape[-1 - axis] - 1) for axis in (0, 1))
        return torch.where(self.inside, values[..., y, x], torch.tensor(outside, dtype=values.dtype))


def moved(sample: Sample, matrix: Matrix, *, fill: str = "mean", boxes: str = "hull") -> Sample:
    """``sample`` with image and truth moved by ``matrix``.

    fill   what is seen where nothing comes from: mean, the image's mean colour, or reflect, the image mirrored (then
           mirrored objects may be found that count as false).  There the semantic map is IGNORE
    boxes  where there is no mask: hull, around the moved corners of the old box, which holds the object but is looser
           than it the more it turns; or ellipse, around the moved ellipse in the box (Kalra et al. 2021), which is right
           for round things and may cut corners off others.  Where there is a mask the box is around the moved mask,
           unless the move keeps the directions of the axes: then the moved corners are exact

    An object that leaves the image is dropped; one of which less than ``VISIBLE`` stays, by area of mask or box, or whose
    mask is too small to be seen, is ignored.
    """
    choice("fill", fill, FILLS)
    choice("boxes", boxes, HULLS)
    size = sample.image.shape[-2:]
    grid = Grid.of(matrix, size)
    image = grid.image(_soft(sample.image, matrix))
    if fill == "mean":
        image = torch.where(grid.inside, image, sample.image.mean((1, 2))[:, None, None])
    semantic = None if sample.semantic is None else grid.nearest(sample.semantic, IGNORE)
    return _truth(replace(sample, image=image, semantic=semantic), sample, matrix, grid, boxes)


def _truth(new: Sample, old: Sample, matrix: Matrix, grid: Grid, boxes: str) -> Sample:
    if old.boxes is None:
        return new if old.masks is None else replace(new, masks=grid.nearest(old.masks, False))
    moved = box_hulls(old.boxes, matrix, boxes)
    clipped = inside(moved, old.image.shape[-2:])
    masks, share = None, _area(clipped) / _area(moved).clamp(min=1e-9)
    empty = torch.zeros(len(moved), dtype=torch.bool)
    if old.masks is not None:
        masks = grid.nearest(old.masks, False)
        seen, share = ~(empty := ~masks.flatten(1).any(1)), stays(old.masks, matrix)
        if not _straight(matrix):
            clipped[seen] = torch.tensor(extents(masks[seen]), dtype=clipped.dtype).reshape(-1, 4)
    keep = (share > 0) & (_area(clipped) > 0)
    ignore = torch.zeros(len(moved), dtype=torch.bool) if old.ignore is None else old.ignore
    return replace(
        new, boxes=clipped[keep].to(old.boxes), labels=None if old.labels is None else old.labels[keep],
        masks=None if masks is None else masks[keep], ignore=(ignore | (share < VISIBLE) | empty)[keep],
    )  # fmt: skip


def hidden(sample: Sample, covered: Tensor) -> Sample:
    """``sample`` with what ``covered`` (H, W) bool hides taken from its truth; the image stays.

    The semantic map is IGNORE there.  Masks lose those pixels, boxes stay (the object reaches as far as before); an
    object wholly covered is dropped, one of which less than ``VISIBLE`` is left is ignored.
    """
    semantic = sample.semantic
    if semantic is not None:
        semantic = torch.where(covered, torch.full_like(semantic, IGNORE), semantic)
    sample = replace(sample, semantic=semantic)
    if sample.boxes is None and sample.masks is None:
        return sample
    if sample.masks is not None:
        whole, left = areas(sample.masks), areas(sample.masks & ~covered)
    else:
        assert sample.boxes is not None
        corners = [pixels(box, covered.shape) for box in sample.boxes.tolist()]
        whole = torch.tensor([covered[box].numel() for box in corners])
        left = torch.tensor([int((~covered[box]).sum()) for box in corners])
    ignore = torch.zeros(len(whole), dtype=torch.bool) if sample.ignore is None else sample.ignore
    masks = None if sample.masks is None else sample.masks & ~covered
    sample = replace(sample, masks=masks, ignore=ignore | (left < VISIBLE * whole))
    return kept(sample, left > 0)


def kept(sample: Sample, keep: Tensor) -> Sample:
    """``sample`` with only the objects of the rows ``keep`` (N,) bool in boxes, labels, masks and ignore."""
    rows = {name: getattr(sample, name) for name in ("boxes", "labels", "masks", "ignore")}
    return replace(sample, **{name: value[keep] for name, value in rows.items() if value is not None})  # type: ignore[arg-type]


def around(matrix: Matrix | Sequence[Sequence[float]], x: float, y: float) -> Matrix:
    """``matrix`` (2, 2) or (3, 3) with (x, y) as the point that stays."""
    found = np.eye(3)
    given = np.asarray(matrix, dtype=np.float64)
    found[: given.shape[0], : given.shape[1]] = given
    return shift(x, y) @ found @ shift(-x, -y)


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def turn(degrees: float) -> Matrix:
    """(2, 2), clockwise as seen, for y points down; exact for quarter turns."""
    if degrees % 90 == 0:
        cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][int(degrees // 90) % 4]
    else:
        cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine], [sine, cosine]], dtype=np.float64)


def box_hulls(boxes: Tensor, matrix: Matrix, kind: str = "hull") -> Tensor:
    """(N, 4) float64 around the moved corners of ``boxes``, or around the moved ellipses in them; may reach outside the image."""
    x1, y1, x2, y2 = boxes.double().unbind(1)
    if kind == "ellipse":  # enough points that the hull is right to 1e-3 of its side
        angles = torch.linspace(0, 2 * np.pi, 65, dtype=torch.float64)[:-1]
        x = (x1 + x2)[:, None] / 2 + (x2 - x1)[:, None] / 2 * angles.cos()
        y = (y1 + y2)[:, None] / 2 + (y2 - y1)[:, None] / 2 * angles.sin()
    else:
        x, y = torch.stack([x1, x2, x2, x1], 1), torch.stack([y1, y1, y2, y2], 1)
    x, y = through(matrix, x, y)
    return torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], 1) if len(boxes) else torch.zeros(0, 4, dtype=torch.float64)


def inside(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """``boxes`` (N, 4) clipped to an image of ``size`` (H, W)."""
    height, width = size
    return boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height], dtype=boxes.dtype))


def through(matrix: Matrix, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    u, v, w = (float(row[0]) * x + float(row[1]) * y + float(row[2]) for row in matrix)
    return u / w, v / w


def stays(masks: Tensor, matrix: Matrix) -> Tensor:
    """(N,) share of the pixels of each mask (N, H, W) whose middles stay inside an image of that size; 0 for an empty mask."""
    height, width = masks.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(length, dtype=torch.float64) + 0.5 for length in (height, width)), indexing="ij")
    x, y = through(matrix, x, y)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return areas(masks & seen).double() / areas(masks).clamp(min=1)


def surface(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``image`` (H, W, 3) with every pixel outside replaced by the nearest one inside."""
    outside = (~inside).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    places = np.zeros(labels.max() + 1, dtype=np.intp)
    places[labels[inside]] = np.flatnonzero(inside)
    return image.reshape(-1, 3)[places[labels]]


class Laid(NamedTuple):
    """An image (3, H, W) with an object laid on it, ``place`` (H, W) bool where it lies, and ``values`` (H, W), what its map says there."""

    image: Tensor
    place: Tensor
    values: Tensor | None = None

    def on(self, semantic: Tensor | None) -> Tensor | None:
        """``semantic`` (H, W) with the object's own classes where it lies."""
        return semantic if semantic is None or self.values is None else torch.where(self.place, self.values, semantic)


def lay(image: Tensor, source: Tensor, mask: Tensor, matrix: Matrix, values: Tensor | None = None) -> Laid:
    """``image`` (3, H, W) with the object ``mask`` (h, w) of ``source`` (3, h, w), which has the map ``values`` (h, w), laid on it, moved.

    Its outline is as soft as bilinear sampling makes it.  No pixel of the source outside of the mask is used, and none of
    ``image`` changes outside of ``place``.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box]  # the object alone, for it may be small
    size = image.shape[-2:]
    move = matrix @ shift(columns[0], rows[0])
    hull = box_hulls(torch.tensor([[0, 0, inside.shape[1], inside.shape[0]]]), move)[0].tolist()
    window = pixels(hull, size)
    result, place = image.clone(), torch.zeros(size, dtype=torch.bool)
    moved_values = None if values is None else torch.full(size, IGNORE, dtype=values.dtype)
    if not place[window].numel():
        return Laid(result, place, moved_values)
    move = shift(-window[1].start, -window[0].start) @ move
    grid = Grid.of(move, place[window].shape, inside.shape)
    own = surface(np.ascontiguousarray(source[:, box[0], box[1]].permute(1, 2, 0).numpy()), inside.numpy())
    object_ = grid.image(_soft(torch.from_numpy(own).permute(2, 0, 1), move))
    place[window] = lies = grid.nearest(inside, False)
    padded = F.pad(inside[None].float(), (1, 1, 1, 1))
    share = Grid.of(move @ shift(-1, -1), lies.shape, padded.shape[1:]).image(padded)[0].clamp(0.5, 1) * lies
    result[:, window[0], window[1]] = torch.lerp(image[:, window[0], window[1]], object_, share)
    if values is not None and moved_values is not None:
        moved_values[window] = grid.nearest(values[box], IGNORE)
    return Laid(result, place, moved_values)


def _soft(image: Tensor, matrix: Matrix) -> Tensor:
    """``image`` without what is too fine to be seen once it is made smaller."""
    factor = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    if factor > 0.95:
        return image
    sigma = 0.5 * np.sqrt(1 / factor**2 - 1)
    blurred = cv2.GaussianBlur(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(blurred).permute(2, 0, 1)


def _straight(matrix: Matrix) -> bool:
    """Whether the directions of the axes stay, so that a box stays a box."""
    return not np.any(matrix[[0, 1, 2, 2], [1, 0, 0, 1]])


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def pixels(box: Sequence[float], size: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box xyxy touches in an image of ``size`` (H, W)."""
    (left, top), (right, bottom) = ([max(0, int(np.floor(edge))) for edge in box[:2]], [max(0, int(np.ceil(edge))) for edge in box[2:]])
    return slice(top, min(size[0], bottom)), slice(left, min(size[1], right))


def choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise XaiError(f"{name}={value!r}: expected {' or '.join(known)}")
