"""Which images a feature map answers to most, what it saw of them, and what of that made it answer (Zeiler and Fergus 2014, figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import Adapter, Model, adapted, as_found, check_images
from ..attribution.base import differentiable
from ..attribution.feature_projection import Response, odd, project, projecting
from ..attribution.gradients import scores_of
from ..attribution.layers import checked, end_of_encoder, map_at, watched
from ..attribution.receptive_field import receptive_fields
from ..data import Dataset, readable
from ..errors import DataError, MethodError, ModelError
from ..targets import Target, bind
from ..types import Activations, Decision, FeatureMap, Peak

NAME = "activations"

CHOSEN = 6
"""Maps that are shown where nobody names any."""

MOST = 100
"""Images kept of each map, at most."""

SIDE = 256
"""Longer side in pixels from which on a patch and its projection are averaged down, so that big photographs stay small."""


def strongest_activations(
    model: Model,
    dataset: Dataset,
    layer: str | None = None,
    features: Sequence[int] | None = None,
    *,
    top: int = 9,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """Of each chosen feature map the ``top`` images with its strongest single activation, the patches seen, and their projections.

    As figure 2 of Zeiler and Fergus (2014): one activation an image, the strongest, led back alone through a deconvnet
    (their section 2.1; see the method ``feature-projection``), beside the part of the image that this cell can see.

    layer     a module of the network; by default the end of the encoder (see ``layers.end_of_encoder``), of a detector
              with a pyramid the level of the largest boxes
    features  numbers of its maps; by default the ``CHOSEN`` with the strongest activation of all, at the moment of looking
    limit     takes the first so many items

    The patch is the cell's receptive field in pixels of the image, clipped to it.  It is calculated from the operations on
    the way to the layer and is the box that holds all paths (see ``receptive_fields``); at the image's border it is
    smaller than elsewhere, and where it covers the image the patch is the whole image (``Peak.whole``).  The
    projection has the scale of the network's normalised input, channels in RGB order.

    Images go through the network one at a time and as far as the layer: so the result is the same however many are at
    hand, and no more than the winners' numbers is kept on the way.  The winners are read again.  Of equal activations the
    first image and the first cell win.

    Broken items are skipped and listed.  Raises MethodError for a black box, a layer or a map that is not there or never
    answers, DataError when no item is usable.

    >>> strongest_activations(model, dataset, "groups.2", [5]).maps[0].peaks[0].id  # doctest: +SKIP
    """
    if not 1 <= top <= MOST:
        raise MethodError(f"{NAME}.top={top}; expected 1 to {MOST}")
    known = adapted(model)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    skipped: list[tuple[str, str]] = []
    way: Way | None = None
    ranking: Ranking | None = None
    with as_found(known):
        for done, (index, item) in enumerate(readable(dataset, range(total)), 1):
            try:
                if isinstance(item, DataError):
                    raise item
                way = way or Way.to(known, item.image, layer)
                with torch.no_grad():
                    maps = way.maps(known.normalise(check_images(item.image[None])))[0]
                ranking = ranking or Ranking.of(_chosen(features, way.layer, len(maps)), len(maps), top)
                ranking.add(index, maps)
            except (DataError, ModelError) as error:
                skipped.append((dataset.ids[index], str(error)))
            if progress is not None:
                progress(done, total)
        if way is None or ranking is None or not ranking.n:
            why = f"the first: {skipped[0][1]}" if skipped else "the dataset, or --limit, leaves none"
            raise DataError(f"{dataset.name}: none of {total} items can be used; {why}")
        rows = ranking.strongest(CHOSEN if features is None else None)
        if features is None and not rows:
            raise MethodError(f"{way.layer} gives nothing above 0 in {ranking.n} images; choose another layer")
        peaks, notes = _peaks(way, dataset, ranking, rows, lambda done, more: progress(total + done, total + more) if progress else None)
    found = tuple(FeatureMap(ranking.features[row], int(ranking.active[row]), tuple(peaks[row])) for row in rows)
    return Activations(known.name, dataset.name, known.task, way.layer, ranking.channels, top, ranking.n, tuple(skipped), found, notes)


@dataclass(frozen=True)
class Way:
    """The way from an image to the maps of ``layer``."""

    model: Adapter
    layer: str
    decision: Decision

    @classmethod
    def to(cls, model: Adapter, image: Tensor, layer: str | None) -> Way:
        """Checks model and layer on a first image; by the largest box that it has, or by its first class."""
        [prediction] = model.predict(check_images(image[None]))
        if model.black_box:
            raise MethodError(f"{NAME} need a network whose layers can be seen; {model.name} is a black box")
        if prediction.task in ("detection", "instances"):
            height, width = prediction.image_size
            target = Target("given", model.classes[0], place=(0.0, 0.0, float(width), float(height)))
        else:
            target = Target("class", model.classes[0])
        decision = bind(target, prediction)
        with projecting(model), differentiable(model.normalise(image[None])) as x:
            seen, _ = watched(model, scores_of(model, decision), x)
            return cls(model, end_of_encoder(model, seen) if layer is None else checked(model, seen, layer, decision, NAME), decision)

    def maps(self, x: Tensor) -> Tensor:
        """(1, C, h, w) for a normalised image (1, 3, H, W)."""
        return map_at(self.model, x, self.layer, self.decision)


@dataclass(eq=False)
class Ranking:
    """The strongest images so far of each of F maps.

    values  (F, top) falling, -inf where there is none yet, and places (F, top, 2): the item and the cell, row by row
    active  (F,) images in which the map is above 0
    """

    features: tuple[int, ...]
    channels: int
    values: Tensor
    places: Tensor
    active: Tensor
    n: int = 0

    @classmethod
    def of(cls, features: tuple[int, ...], channels: int, top: int) -> Ranking:
        values, places = torch.full((len(features), top), -torch.inf, dtype=torch.float64), torch.zeros(len(features), top, 2).long()
        return cls(features, channels, values, places, torch.zeros(len(features)).long())

    def add(self, index: int, maps: Tensor) -> None:
        """The maps (C, h, w) of an item; DataError where they are not finite."""
        if len(maps) != self.channels:
            raise DataError(f"gives {len(maps)} maps where others give {self.channels}; leave it out")
        peaks, cells = (each.cpu() for each in maps[list(self.features)].flatten(1).max(1))
        if not bool(torch.isfinite(peaks).all()):
            raise DataError("gives activations that are not finite; leave it out")
        self.n += 1
        self.active += peaks > 0
        values = torch.cat([self.values, peaks[:, None].double()], 1)
        places = torch.cat([self.places, torch.stack([torch.full_like(cells, index), cells], 1)[:, None]], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.values.shape[1]]  # earlier items stay before equal ones
        self.values, self.places = values.gather(1, order), places.gather(1, order[..., None].expand(-1, -1, 2))

    def strongest(self, most: int | None) -> list[int]:
        """The rows of the ``most`` maps with the largest peak above 0, by falling peak; all in their order where it is None."""
        if most is None:
            return list(range(len(self.features)))
        order = self.values[:, 0].argsort(descending=True, stable=True)[:most].tolist()
        return [row for row in order if self.values[row, 0] > 0]


def _chosen(features: Sequence[int] | None, layer: str, channels: int) -> tuple[int, ...]:
    if features is None:
        return tuple(range(channels))
    if not features or not all(0 <= each < channels for each in features):
        raise MethodError(f"{NAME}.features={list(features)}: {layer} has {channels} maps; give some of 0 to {channels - 1}")
    return tuple(dict.fromkeys(features))


@dataclass(frozen=True)
class Winner:
    """One peak before it is looked at: the row and rank where it goes, and the cell, row by row."""

    row: int
    rank: int
    cell: int
    value: float


def _peaks(
    way: Way, dataset: Dataset, ranking: Ranking, rows: Sequence[int], progress: Callable[[int, int], None]
) -> tuple[dict[int, list[Peak]], tuple[str, ...]]:
    """The peaks of each row by falling value, and what should be known of them; every item is read once."""
    wanted: dict[int, list[Winner]] = {}
    for row in rows:
        for rank, (value, (index, cell)) in enumerate(zip(ranking.values[row].tolist(), ranking.places[row].tolist(), strict=True)):
            if value > 0:
                wanted.setdefault(index, []).append(Winner(row, rank, cell, value))
    found: dict[int, dict[int, Peak]] = {row: {} for row in rows}
    fields: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, str]] = {}
    hidden = 0
    with projecting(way.model) as deconvnet:
        for done, (index, winners) in enumerate(sorted(wanted.items()), 1):
            sample = dataset[index]
            size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
            with differentiable(way.model.normalise(sample.image[None])) as x:
                if size not in fields:
                    fields[size] = receptive_fields(way.model, x, way.layer, way.decision)
                maps = way.maps(x)
                for each in winners:
                    row, column = divmod(each.cell, int(maps.shape[-1]))
                    (top, bottom), (left, right) = fields[size][0][row].tolist(), fields[size][1][column].tolist()
                    if top >= bottom or left >= right:
                        hidden += 1
                        continue
                    cells = torch.zeros(maps.shape[-2:], dtype=torch.bool, device=maps.device)
                    cells[row, column] = True
                    projection = project(Response(way.layer, maps, cells), ranking.features[each.row], "map", x).cpu()
                    part = (slice(None), slice(top, bottom), slice(left, right))
                    found[each.row][each.rank] = Peak(
                        sample.id, each.value, (row, column), torch.tensor([left, top, right, bottom]), size,
                        _small(sample.image[part]), _small((projection.flip(0) if way.model.order == "bgr" else projection)[part]),
                    )  # fmt: skip
            progress(done, len(wanted))
    unknown = next((why for _, _, why in fields.values() if why), None)
    alike = f"no max pooling on the way to {way.layer}: little of the image enters a projection, its shape is that of the weights"
    notes = (
        *odd(deconvnet),
        *([] if deconvnet.pooled else [alike]),
        *(
            [f"receptive fields are not known, patches are whole images: the way to {way.layer} cannot be traced ({unknown})"]
            if unknown
            else []
        ),
        *([f"cells that see only padding beside the image, left out: {hidden}"] if hidden else []),
    )
    return {row: [peak for _, peak in sorted(peaks.items())] for row, peaks in found.items()}, notes


def _small(picture: Tensor) -> Tensor:
    """``picture`` (3, h, w) itself, or a mean of it with ``SIDE`` pixels on the longer side."""
    height, width = picture.shape[-2:]
    share = SIDE / max(height, width)
    if share >= 1:
        return picture.clone()
    return F.interpolate(picture[None], (max(1, round(height * share)), max(1, round(width * share))), mode="area")[0]
