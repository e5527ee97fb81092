"""Two outlines beside each other: the turn by which one covers the other, and the surface of one carried over to the other."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from .geometry import around, surface, turn

RASTER, STEP = 48, 6
"""Side in pixels of the rasters on which outlines are compared, and the degrees between the turns that are tried."""

POINTS = 250
"""Of each outline's inside, points that are matched; what lies between goes where its nearest ones go."""

NEAREST = 8

Pixels = NDArray[np.float32]


def covering(mask: Tensor, outline: Tensor) -> float:
    """Degrees, clockwise as seen, by which ``mask`` (H, W) bool best covers ``outline`` (h, w) bool (IoU), middles and sizes brought
    together; of turns that cover equally the smallest."""
    own, aim = _standard(mask), _standard(outline) > 0.5
    turns = sorted(range(0, 360, STEP), key=lambda each: min(each, 360 - each))
    shared = []
    for degrees in turns:
        matrix = around(turn(degrees), RASTER / 2 - 0.5, RASTER / 2 - 0.5)[:2]
        turned = cv2.warpAffine(own, matrix, (RASTER, RASTER)) > 0.5
        shared.append((turned & aim).sum() / max(1, (turned | aim).sum()))
    return float(turns[int(np.argmax(shared))])


def _standard(mask: Tensor) -> NDArray[np.float32]:
    """``mask`` on a small raster, its middle in the raster's and its area a fifth of it."""
    rows, columns = (each.double() for each in mask.nonzero(as_tuple=True))
    scale = RASTER * np.sqrt(0.2 / max(1, len(rows)))
    x, y = (RASTER / 2 - 0.5 - scale * float(each.mean()) for each in (columns, rows))
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    return np.asarray(cv2.warpAffine(mask.numpy().astype(np.float32), matrix, (RASTER, RASTER), flags=cv2.INTER_AREA), np.float32)


def carried(image: Tensor, mask: Tensor, outline: NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    """(h, w, 3): the surface of the object ``mask`` (H, W) of ``image`` (3, H, W) on the shape ``outline`` (h, w); undefined beside it.

    The object is turned so that it best covers the outline, brought to its area, and the two insides are matched so that points
    move as little as possible (optimal transport of one even mass to the other, Kantorovich 1942): what is near its edge
    comes near the other's edge, and neighbours stay neighbours, so that patterns stay what they are and the object's own
    shape is not seen any more.
    """
    inside = mask.numpy()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    pixels = surface(np.ascontiguousarray(image[:, box[0], box[1]].permute(1, 2, 0).numpy()), inside[box])
    own, places = _points(inside[box]), _points(outline)
    middle, size = own.mean(0), np.sqrt(len(places) / len(own))
    turned = turn(covering(mask[box], torch.from_numpy(outline)))
    aims = (own - middle) @ turned.T * size
    moves = _moves(places - places.mean(0), aims, generator)
    there = np.zeros((*outline.shape, 2), np.float32)
    there[outline] = (places - places.mean(0) + moves) / size @ turned + middle
    if size < 1:  # it is shown smaller than it is: blurred by as much as it shrinks
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * np.sqrt(1 / size**2 - 1) + 1e-3, borderType=cv2.BORDER_REPLICATE)
    return cv2.remap(pixels, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _points(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) xy of the pixels in ``mask``."""
    return np.argwhere(mask)[:, ::-1].astype(np.float64)


def _moves(places: NDArray[np.float64], aims: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """(N, 2) from each of ``places`` (N, 2) to where it belongs among ``aims`` (M, 2)."""
    count = min(POINTS, len(places), len(aims))
    some, ends = (each[generator.choice(len(each), count, replace=False)] for each in (places, aims))
    first, second = linear_sum_assignment(((some[:, None] - ends) ** 2).sum(2))
    far, near = cKDTree(some[first]).query(places, k=np.arange(1, min(NEAREST, count) + 1))
    weight = 1 / (far**2 + 1)
    return ((ends[second] - some[first])[near] * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)
