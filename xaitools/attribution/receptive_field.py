"""Which pixels of the image a cell of a feature map can see."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..adapters import Adapter
from ..types import Decision
from .incremental.graph import Untraceable, record
from .incremental.plan import fields
from .layers import map_at


def receptive_fields(model: Adapter, x: Tensor, layer: str, decision: Decision) -> tuple[np.ndarray, np.ndarray, str]:
    """The rows (h, 2) and columns (w, 2) of the image ``x`` (1, 3, H, W) that each row and column of the layer's map can see.

    They are first and past-the-last pixels of the normalised image at its own size, clipped to it; what an adapter does
    before the network (resizing, cropping, padding) counts.  First is not below past where only padding is seen.  The
    third is "", or why the fields are not known and stand as the whole image.

    Found by calculation, not by probing: the way to the layer is traced once for images of this size, and of every
    operation it is known which positions of its input an output position takes (kernel, stride, padding, dilation; all of
    it for a pooling over the whole map or an operation that nobody listed).  Followed backwards this gives the box that
    holds all paths from a pixel to the cell; only at the border of a dilated kernel it may be larger, by less than the
    dilation.  A gradient would show less: rectifiers that are shut, switches of pooling and weights that are 0 hide pixels
    on which the cell would depend in another image.
    """
    height, width = int(x.shape[-2]), int(x.shape[-1])
    try:
        graph = record(lambda image: map_at(model, image, layer, decision), x.detach())
        rows, columns = fields(graph)
        return rows, columns, ""
    except (Untraceable, RuntimeError, ValueError, TypeError) as error:  # what a stranger's network may do under tracing
        with torch.no_grad():
            cells = map_at(model, x, layer, decision).shape[-2:]
        rows, columns = (np.tile([0, side], (count, 1)) for side, count in zip((height, width), cells, strict=True))
        return rows, columns, str(error).splitlines()[0][:80]
