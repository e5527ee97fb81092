"""Spectral relevance analysis (SpRAy): do some decisions of a class rest on something else than the others?

After Lapuschkin et al. 2019 (Nature Communications 10:1096, methods): relevance maps are downsized and normalised, joined to
their nearest neighbours, and the eigenvalues of the graph's normalised Laplacian say how many clusters there are (eigengap) and
which (spectral clustering, Ng et al. 2001).  Here the maps are those of decisions about objects, in two views (see ``decisions``):
by place in the image, and around the object.  Each is clustered by itself.

Where we differ: the maps' positive shares are compared by their square roots (Hellinger distance), so that a faint gathering
counts beside a strong one; one cluster is an answer; and what is suspicious is decided by ``Criteria`` and not by eye.

How cleanly a cue is set apart depends on the maps.  Of five small detectors that rely on a tag which 30 % of one class had in training
(1000 scenes, 87 to 92 tagged boxes among 303 to 342), the adjusted Rand index of the two-way split with the truth was 0.71 to 0.84 by
``lrp``, where a classifier that is told the truth of other boxes reaches little more (0.83 to 0.89, four of them), and 0.89 to 0.95 by
``lrp-gamma``; 0.92 to 0.97 without the boxes that cover the tag, which is then part of their object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset
from ..errors import DataError
from ..metrics.statistics import image_weights, interval
from ..probes.base import draws
from .decisions import AROUND, RING, SIDE, Decided, Decisions, widened

VIEWS = ("place", "object")

PEAK = 0.25
"""Cells belong to where relevance gathers that have so much of what the strongest has."""

REPLICATES = 1000

Array = NDArray[np.float64]
Facts = dict[str, Any]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Criteria:
    """What is clustered, and when a cluster is suspicious; ``words`` says the latter.

    fewest      decisions of a class below which it is not clustered
    most        beyond so many, a part drawn by the seed is
    clusters    at most so many
    subsets     for the stability, each of four fifths of the decisions but at most ``subset``
    least, share  a cluster has so many members, and so large a share of the class
    excess      by so much more of the relevance gathers at the cluster's place than in other decisions, at the interval's lower end
    times       and so many times as much as there
    chance      and so many times what its area would have by chance
    widest      and the place is no larger than that share of the view: what surrounds an object on all sides is no place
    having      so many of its members have more there than 19 of 20 other decisions
    stability   how well it is found again in subsets (mean Jaccard index of Hennig 2007)
    eigengap    of several clusters
    confidence  the members may be less sure than the other decisions by so much
    """

    fewest: int = 15
    most: int = 1000
    clusters: int = 8
    subsets: int = 20
    subset: int = 300
    least: int = 5
    share: float = 0.05
    excess: float = 0.02
    times: float = 3.0
    chance: float = 1.0
    widest: float = 0.25
    having: float = 0.75
    stability: float = 0.75
    eigengap: float = 0.05
    confidence: float = 0.1

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            f"A cluster is suspicious if it has at least {self.least} members and {100 * self.share:g} % of the class; if at one place "
            f"outside the object and its surroundings it has more of its positive relevance than the model's other decisions have, by "
            f"{100 * self.excess:g} points or more at the lower end of the 95 % interval and {self.times:g} times as much or more, and at "
            f"least {self.chance:g} times what the area has by chance, the place being at most {100 * self.widest:g} % of the view; if "
            f"{100 * self.having:g} % or more of its members have more there than 19 of 20 other decisions; if it is found again in "
            f"subsets (Jaccard index {self.stability:g} or more) and set apart "
            f"(eigengap {self.eigengap:g} or more, where there are several clusters); and if the model is as sure there as elsewhere (at "
            f"most {self.confidence:g} below)."
        )


def spray(decisions: Decisions, *, seed: int = 0, criteria: Criteria | None = None) -> Facts:
    """{class: facts} of every class that the model decided for; the order of the decisions changes nothing.

    n         decisions; ``note`` says why they were not clustered, or that not all were
    view      the one whose clusters stand under ``clusters``: with more suspicious members, else with several clusters, else with
              the larger eigengap
    clusters  a partition: [{"size", "suspicious", "members", ...}], the largest first (see ``_facts``)
    views     of each: its clusters, ``eigenvalues``, ``eigengap``, ``stability`` (adjusted Rand index of the whole with subsets:
              mean and 5 and 95 % quantile), and ``points``: [id, target, cluster, x, y] of each decision in a t-SNE picture
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: threads would mostly wait for each other, and round otherwise
        return _sprayed(decisions, seed, criteria or Criteria())


def _sprayed(decisions: Decisions, seed: int, criteria: Criteria) -> Facts:
    found: Facts = {}
    made = sorted(decisions.made, key=lambda each: each.key)
    for label, name in enumerate(decisions.classes):
        mine = [each for each in made if each.label == label]
        if not mine:
            continue
        if len(mine) < criteria.fewest:
            note = f"{len(mine)} decisions, too few to cluster; {criteria.fewest} are needed"
            found[name] = {"n": len(mine), "view": None, "clusters": [], "views": {}, "note": note}
            continue
        note = ""
        if len(mine) > criteria.most:
            note = f"{criteria.most} of {len(mine)} decisions, drawn by the seed"
            kept = draws(seed, "spray", 0, name).permutation(len(mine))[: criteria.most]
            mine = [mine[place] for place in sorted(kept.tolist())]
        others = [each for each in made if each.label != label]
        usable = [view for view in VIEWS if view == "place" or all(each.object_view.any() for each in mine)]
        views = {view: _viewed(view, mine, others, seed, criteria) for view in usable}
        best = max(views, key=lambda view: (_suspected(views[view]), len(views[view]["clusters"]) > 1, views[view]["eigengap"]))
        found[name] = {"n": len(mine), "view": best, "clusters": views[best]["clusters"], "views": views, "note": note}
    return found


def _suspected(facts: Facts) -> int:
    return sum(each["size"] for each in facts["clusters"] if each["suspicious"])


def _viewed(view: str, mine: Sequence[Decided], others: Sequence[Decided], seed: int, criteria: Criteria) -> Facts:
    points = features(np.stack([map_of(each, view) for each in mine]))
    labels, eigenvalues = clustered(points, seed, criteria.clusters)
    count = int(labels.max()) + 1
    gap = float(eigenvalues[count] - eigenvalues[count - 1]) if len(eigenvalues) > count else 0.0
    rand, jaccard = stability(points, labels, seed, criteria)
    clusters = [
        _facts(view, [each for each, own in zip(mine, labels, strict=True) if own == number],
               [*(each for each, own in zip(mine, labels, strict=True) if own != number), *others],
               len(mine), count, gap, jaccard[number], seed, criteria)
        for number in range(count)
    ]  # fmt: skip
    picture = embedded(points, seed)
    return {
        "clusters": clusters, "eigenvalues": _rounded(eigenvalues), "eigengap": gap,
        "stability": {"mean": float(np.mean(rand)), "quantiles": _rounded(np.quantile(rand, (0.05, 0.95))), "subsets": len(rand)},
        "points": [[*each.key, int(own), *_rounded(xy)] for each, own, xy in zip(mine, labels, picture, strict=True)],
    }  # fmt: skip


def map_of(decided: Decided, view: str) -> Array:
    """(SIDE, SIDE)"""
    return (decided.place if view == "place" else decided.object_view).astype(float)


# -- clusters


def features(maps: Array) -> Array:
    """(N, D) of maps (N, H, W) of non-negative shares: their square roots, whose distance is Hellinger's."""
    return np.sqrt(maps.clip(min=0)).reshape(len(maps), -1)


def affinity(points: Array, neighbours: int | None = None) -> Array:
    """(N, N): 1 between points (N, D) of which either is among the other's nearest ``neighbours``, else 0.

    >>> affinity(np.array([[0.0], [1.0], [5.0], [6.0]]), 1)
    array([[0., 1., 0., 0.],
           [1., 0., 0., 0.],
           [0., 0., 0., 1.],
           [0., 0., 1., 0.]])
    """
    n = len(points)
    neighbours = min(n - 1, neighbours or max(5, round(n**0.5)))
    squares = (points**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0)
    np.fill_diagonal(distances, np.inf)
    near = np.zeros((n, n))
    np.put_along_axis(near, distances.argsort(1, kind="stable")[:, :neighbours], 1.0, axis=1)
    return np.maximum(near, near.T)


def spectrum(graph: Array) -> tuple[Array, Array]:
    """Eigenvalues (N,), rising from 0, and eigenvectors (N, N) of the normalised Laplacian 1 - D^-1/2 W D^-1/2."""
    scale = 1 / np.sqrt(graph.sum(1))
    values, vectors = np.linalg.eigh(np.eye(len(graph)) - scale[:, None] * graph * scale[None])
    return values.clip(min=0), vectors


def clustered(points: Array, seed: int, most: int) -> tuple[NDArray[np.int64], Array]:
    """The cluster of each point (N,), numbered by falling size, and the first ``most`` + 1 eigenvalues; the eigengap says how many."""
    from sklearn.cluster import KMeans

    values, vectors = spectrum(affinity(points))
    values = values[: most + 1]
    count = int(np.diff(values).argmax()) + 1
    if count == 1:
        return np.zeros(len(points), np.int64), values
    rows = vectors[:, :count]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = KMeans(count, n_init=10, random_state=seed).fit(rows).labels_
    sizes = np.bincount(found, minlength=count)
    first = [int(np.argmax(found == number)) if sizes[number] else len(found) for number in range(count)]
    order = sorted((number for number in range(count) if sizes[number]), key=lambda number: (-sizes[number], first[number]))
    return np.array([order.index(each) for each in found.tolist()]), values


def stability(points: Array, labels: NDArray[np.int64], seed: int, criteria: Criteria) -> tuple[list[float], list[float]]:
    """Clusters found anew in subsets: the adjusted Rand index of each subset with ``labels``, and of each cluster the mean of its
    largest Jaccard index with one of the subset's (subsets that hold none of it left out)."""
    from sklearn.metrics import adjusted_rand_score

    dice = draws(seed, "stability", 0, "")
    size = min(criteria.subset, max(2, round(0.8 * len(points))))
    rand, jaccard = [], [list[float]() for _ in range(int(labels.max()) + 1)]
    for _ in range(criteria.subsets):
        some = np.sort(dice.permutation(len(points))[:size])
        again, _ = clustered(points[some], seed, criteria.clusters)
        rand.append(float(adjusted_rand_score(labels[some], again)))
        for number, found in enumerate(jaccard):
            own = labels[some] == number
            if own.any():
                found.append(
                    max(float((own & (again == each)).sum() / (own | (again == each)).sum()) for each in range(int(again.max()) + 1))
                )
    return rand, [float(np.mean(each)) if each else 0.0 for each in jaccard]


def embedded(points: Array, seed: int) -> Array:
    """(N, 2): a picture of the points in which neighbours stay neighbours (t-SNE, from the principal axes, so seeded twice)."""
    from sklearn.manifold import TSNE

    if not np.ptp(points, axis=0).any():
        return np.zeros((len(points), 2))
    perplexity = min(30.0, (len(points) - 1) / 3)
    found: Array = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=500).fit_transform(points).astype(float)
    return found


# -- what a cluster shares


def _facts(
    view: str, members: Sequence[Decided], others: Sequence[Decided], total: int, count: int, gap: float, jaccard: float, seed: int,
    criteria: Criteria,
) -> Facts:  # fmt: skip
    """One cluster:

    size, share          members, and their part of the class
    members, targets     the image's id and what was explained in it, of each
    suspicious, lacks    and the tests of ``Criteria`` that it fails, by name
    confidence, right    means over members; ``confidence_others``
    outside              share of relevance not on the object (``value``), ``others``, and the area not on it (``chance``)
    gathers              where it has more than the other decisions: ``xyxy`` in shares of the view, ``mass`` there, ``others``, the
                         ``difference`` with ``ci``, ``chance``, and how many members have it (``having``); the place is chosen on
                         one half of the images and measured on the other, and the other way round
    stability, eigengap  Jaccard index over subsets; that of all the view
    maps                 the mean of both views
    """
    gathers = gathered(view, members, others, seed)
    box = gathers["xyxy"]
    sure, elsewhere = (float(np.mean([each.confidence for each in some])) if some else None for some in (members, others))
    rights = [each.right for each in members if each.right is not None]
    tests = {
        "size": len(members) >= max(criteria.least, criteria.share * total),
        "excess": gathers["ci"] is not None and gathers["ci"][0] >= criteria.excess,
        "times": gathers["others"] is None or gathers["mass"] >= criteria.times * gathers["others"],
        "chance": gathers["mass"] >= criteria.chance * gathers["chance"],
        "widest": (box[2] - box[0]) * (box[3] - box[1]) <= criteria.widest,
        "having": gathers["having"] >= criteria.having * len(members),
        "stability": jaccard >= criteria.stability,
        "eigengap": count == 1 or gap >= criteria.eigengap,
        "confidence": elsewhere is None or sure is None or sure >= elsewhere - criteria.confidence,
    }
    return {
        "size": len(members), "suspicious": all(tests.values()), "members": [each.item for each in members],
        "targets": [each.target for each in members], "lacks": [name for name, met in tests.items() if not met],
        "share": len(members) / total, "confidence": sure, "confidence_others": elsewhere,
        "right": float(np.mean(rights)) if rights else None,
        "outside": {"value": _outside(members), "others": _outside(others),
                    "chance": float(np.mean([1 - each.areas[0] for each in members]))},
        "gathers": gathers, "stability": jaccard, "eigengap": gap,
        "maps": {name: [_rounded(row, 5) for row in np.mean([map_of(each, name) for each in members], 0)] for name in VIEWS},
    }  # fmt: skip


def _outside(some: Sequence[Decided]) -> float | None:
    return float(np.mean([1 - each.shares[0] for each in some])) if some else None


def gathered(view: str, members: Sequence[Decided], others: Sequence[Decided], seed: int) -> Facts:
    """Where outside the object the members' relevance gathers beyond that of ``others``; see ``_facts``."""
    every = [*members, *others]
    maps = np.stack([outside_of(map_of(each, view), view) for each in every])
    own = np.arange(len(every)) < len(members)
    ids = [each.item for each in every]
    names = sorted(set(ids))
    first = set(draws(seed, "halves", 0, "").permutation(names)[: len(names) // 2].tolist())
    half = np.array([each in first for each in ids])
    areas = np.array([1.0 if view == "place" else _frame(each) for each in every])
    mass, chance = np.zeros(len(every)), np.zeros(len(every))
    for side in (half, ~half):  # chosen on the other half of the images
        chooser = ~side if (own & ~side).any() else np.ones_like(side)
        box = peak_of(_contrast(maps[chooser], own[chooser]))
        mass[side], chance[side] = _within(maps[side], box), areas[side] * _area(box)
    place = peak_of(_contrast(maps, own))
    usual = float(np.quantile(mass[~own], 0.95)) if len(others) else 0.0
    return {
        "view": view, "xyxy": [each / SIDE for each in place], "mass": float(mass[own].mean()),
        "others": float(mass[~own].mean()) if len(others) else None, "chance": float(chance[own].mean()),
        **_difference(mass, own, ids, seed), "having": int((mass[own] > usual).sum()),
    }  # fmt: skip


def outside_of(view_map: Array, view: str) -> Array:
    """The map without the object and its ring: the middle of the object view; the place view leaves them out already."""
    if view == "place":
        return view_map
    rim = round(SIDE * (AROUND - RING) / (1 + 2 * AROUND))
    found = view_map.copy()
    found[rim : SIDE - rim, rim : SIDE - rim] = 0
    return found


def _frame(decided: Decided) -> float:
    """The object view's share of the image; more than that where it reaches beyond, so that chance is never too small."""
    left, top, right, bottom = decided.box
    return float((1 + 2 * AROUND) ** 2 * (right - left) * (bottom - top))


def _contrast(maps: Array, own: NDArray[np.bool_]) -> Array:
    return maps[own].mean(0) - (maps[~own].mean(0) if (~own).any() else 0.0)


def peak_of(contrast: Array) -> tuple[int, int, int, int]:
    """xyxy in cells of the box around the strongest cell and all that hang together with it and have ``PEAK`` of it."""
    top = np.unravel_index(contrast.argmax(), contrast.shape)
    _, pieces = cv2.connectedComponents((contrast >= max(PEAK * contrast[top], 1e-12)).astype(np.uint8), connectivity=8)
    if not pieces[top]:
        return int(top[1]), int(top[0]), int(top[1]) + 1, int(top[0]) + 1
    rows, columns = np.nonzero(pieces == pieces[top])
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _within(maps: Array, box: tuple[int, int, int, int]) -> Array:
    left, top, right, bottom = box
    found: Array = maps[:, top:bottom, left:right].sum((1, 2))
    return found


def _area(box: tuple[int, int, int, int]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) / SIDE**2


def shared_box(view: str, xyxy: Array, box: Array, size: Sequence[int]) -> Box | None:
    """What ``xyxy``, in shares of a view, is in pixels of an image (H, W) with a decision about ``box``; None where it lies outside."""
    height, width = size
    frame = np.array([0.0, 0.0, 1.0, 1.0]) if view == "place" else widened(box)
    spans = np.array([frame[2] - frame[0], frame[3] - frame[1]] * 2)
    left, top, right, bottom = (np.array([*frame[:2], *frame[:2]]) + xyxy * spans) * (width, height, width, height)
    found = max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))
    return found if found[2] - found[0] >= 2 and found[3] - found[1] >= 2 else None


@dataclass(frozen=True, eq=False)
class Member:
    """A member of a cluster to look at: its image (3, H, W), its object's ``box`` xyxy in pixels, and the place that the cluster shares."""

    item: str
    image: Tensor
    box: tuple[float, ...]
    shared: Box | None


def members_of(dataset: Dataset, decisions: Decisions, cluster: Mapping[str, Any], most: int = 6) -> list[Member]:
    """Of at most ``most`` images the surest members of ``cluster``; those that cannot be read any more are left out."""
    keys = set(zip(cluster["members"], cluster["targets"], strict=True))
    sure = sorted((each for each in decisions.made if each.key in keys), key=lambda each: (-each.confidence, each.key))
    index = {item: place for place, item in enumerate(dataset.ids)}
    found: dict[str, Member] = {}
    for each in sure:
        if len(found) == most or each.item in found:
            continue
        try:
            image = dataset[index[each.item]].image
        except DataError:
            continue
        height, width = image.shape[-2:]
        gathers = cluster["gathers"]
        place = shared_box(gathers["view"], np.array(gathers["xyxy"], float), each.box, (height, width))
        found[each.item] = Member(each.item, image, tuple((each.box * (width, height, width, height)).tolist()), place)
    return list(found.values())


def _difference(values: Array, own: NDArray[np.bool_], ids: Sequence[str], seed: int) -> Facts:
    """Mean of members less that of the others, with its 95 % interval over images."""
    if not (~own).any():
        return {"difference": None, "ci": None}
    weights = image_weights(ids, seed=seed, replicates=REPLICATES, clusters=ids)
    sides = []
    for some in (own, ~own):
        counts = weights[:, some].sum(1)
        sides.append(np.where(counts > 0, weights[:, some] @ values[some] / np.maximum(counts, 1), np.nan))
    return {"difference": float(values[own].mean() - values[~own].mean()), "ci": interval(sides[0] - sides[1])}


def _rounded(numbers: Array, digits: int = 4) -> list[float]:
    return [round(float(each), digits) for each in numbers]
