"""The values that flow through xaitools.  They hold data only; what is done with them lives elsewhere.

Images are float32 RGB in [0, 1] with shape (3, H, W).  Boxes are xyxy in pixels of the original image,
pixel centres at half integers, so the whole image is ``(0, 0, W, H)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

IGNORE = 255
"""Value of a semantic map where a pixel has no label; it counts in no metric."""

REST = -1
"""As ``Decision.versus``: all other classes together."""

TASKS = ("classification", "segmentation", "detection", "instances")

FATES = ("kept", "suppressed", "below", "empty", "unranked", "beyond")
"""What may become of a box that a detector thought of; see ``Trace``."""
KEPT, SUPPRESSED, BELOW, EMPTY, UNRANKED, BEYOND = range(len(FATES))


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with what is known about it; a field that the dataset lacks is None.

    image     (3, H, W) float32 RGB in [0, 1]
    label     index into the dataset's ``classes``
    semantic  (H, W) int64, index into the dataset's ``semantic_classes``; IGNORE where unlabelled
    boxes     (N, 4) float32 xyxy in pixels
    labels    (N,) int64, index into the dataset's ``classes``
    masks     (N, H, W) bool
    ignore    (N,) bool: VOC ``difficult`` or COCO ``iscrowd``; neither found nor missed counts
    tags      anything else the dataset says (licence, file, scene factors)
    """

    id: str
    image: Tensor
    label: int | None = None
    semantic: Tensor | None = None
    boxes: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    ignore: Tensor | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image; fields that the task lacks are None.

    image_size     (H, W) of the image as given
    labels         (N,) int64, index into ``classes``: what was found, sorted by falling score (detection) or
                   falling area (segmentation); classification: all classes by falling probability
    scores         (N,) in [0, 1]: of each box; mean probability over the pixels of each segment; class probability
    semantic       (H, W) int64, the most probable class of each pixel
    boxes          (N, 4) xyxy in pixels of the image
    masks          (N, H, W) bool, instances
    origins        two stages: (N, 4) xyxy, the proposal that became each final box, in pixels of the image; with
                   ``labels`` it leads back to the raw logit
    anchors        one stage: (N,) int64, the number of the anchor, cell or query that became each final box
    candidates     one stage: (A, 4) xyxy, the box that each anchor, cell or query predicts before suppression, so
                   that a given box finds the one that would report it
    cells          (N, M, M) bool: the positive cells of each mask on the grid of the mask head
                   A black box has none of the four.
    background     index of the class that means "nothing", never chosen as ``top``
    """

    task: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    labels: Tensor
    scores: Tensor
    semantic: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None
    origins: Tensor | None = None
    anchors: Tensor | None = None
    candidates: Tensor | None = None
    cells: Tensor | None = None
    background: int | None = None


@dataclass(frozen=True, eq=False)
class Decision:
    """A target bound to one prediction: the number that is explained, held fixed while the image changes.

    target       the target string it came from
    class_index  index into the model's ``classes``
    versus       None: the class logit alone; an index: minus that class's logit; REST: minus the
                 log-sum-exp of all other classes
    region       (H, W) bool: segmentation, the pixels over which the logit is averaged
    box          (4,) xyxy in pixels of the image: the final or given box that is spoken of; for ``mask:`` the box in
                 which the mask is drawn
    proposal     (4,) xyxy in pixels of the image: two stages, the proposal whose logit it is
    anchor       one stage: the number of the anchor, cell or query whose logit it is
    cells        (M, M) bool: instances, the cells over which the mask logit is averaged
    edge         left, top, right or bottom: the regression output that moves that edge, instead of the logit
    reading      "logit", or "probability" for the softmax probability in its place
    """

    target: str
    class_index: int
    versus: int | None = None
    region: Tensor | None = None
    box: Tensor | None = None
    proposal: Tensor | None = None
    anchor: int | None = None
    cells: Tensor | None = None
    edge: str | None = None
    reading: str = "logit"


@dataclass(frozen=True, eq=False)
class Trace:
    """How a detector came to its boxes: what it thought of, and what became of it.

    A candidate is what the network judged: a proposal, an anchor, the box of a cell or of a query.  A row is one
    candidate with one class: all pairs that score above the threshold, and of every candidate its best class; sorted by
    candidate and class.  Boxes are xyxy in pixels of the image.  For R rows:

    kind             what a candidate is called: proposal, anchor, candidate
    classes          names behind ``labels``
    image_size       (H, W) of the image as given
    score_threshold  a row must score more
    nms              IoU above which the weaker of two boxes of a class is suppressed
    most             the largest number of final boxes
    candidates       (R,) int64: the number of the candidate, from 0
    labels           (R,) int64: index into ``classes``
    logits           (R,): the raw class logit, that of objectness in a first stage
    scores           (R,) in [0, 1]
    boxes            (R, 4): as regressed for the class, clipped to the image
    fates            (R,) int64, index into FATES: kept; suppressed; below the score threshold; empty, nothing of it lies
                     inside the image; unranked, not among the best that the network suppresses at all; beyond the
                     largest number of boxes
    finals           (R,) int64: its number among the final boxes, or -1; those of a first stage are the candidates of the second
    winners          (R,) int64: the row that suppressed it, kept or beyond, or -1
    overlaps         (R,): the IoU with that row, NaN where nothing suppressed it
    priors           (R, 4): where the candidate started, before regression: the anchor, the proposal, the cell; None where
                     the network has none.  They may reach beyond the image.
    first            two stages: the trace of the first, whose only class is "object"; None where the proposals came from outside
    """

    kind: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    score_threshold: float
    nms: float
    most: int
    candidates: Tensor
    labels: Tensor
    logits: Tensor
    scores: Tensor
    boxes: Tensor
    fates: Tensor
    finals: Tensor
    winners: Tensor
    overlaps: Tensor
    priors: Tensor | None = None
    first: Trace | None = None

    def merged(self, final: int) -> Tensor:
        """The row of a final box, then the rows that it suppressed, by falling score."""
        row = int((self.finals == final).nonzero()[0])
        losers = (self.winners == row).nonzero()[:, 0]
        return torch.cat([losers.new_tensor([row]), losers[self.scores[losers].argsort(descending=True, stable=True)]])


@dataclass(frozen=True, eq=False)
class Panels:
    """What a network does while a window hides one part of the image after another (Zeiler and Fergus 2014, figure 6).

    For R x C positions of the window:

    window       its side in pixels
    tops, lefts  (R,), (C,) int64: where it begins, in pixels of the image
    occluded     (3, H, W) in [0, 1]: the image where hiding lowers the probability most
    layer        the module whose map is watched
    feature      the number of the map that answers most to the target in the unchanged image
    activation   (R, C): the sum of its positive activations where the target lies; ``clean_activation`` of the unchanged image
    projection   (3, H, W) in [0, 1]: that map led back to the image by a deconvnet, grey where it is 0
    probability  (R, C) in [0, 1]: of the target's class; ``clean_probability`` of the unchanged image
    labels       (R, C) int64, index into ``names``: the most probable class of the target's pixels or box
    names        the classes and, last, "nothing": more likely than any of them
    """

    window: int
    tops: Tensor
    lefts: Tensor
    occluded: Tensor
    layer: str
    feature: int
    activation: Tensor
    clean_activation: float
    projection: Tensor
    probability: Tensor
    clean_probability: float
    labels: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Attribution:
    """A signed relevance map for one target, with everything needed to make it again.

    values   (H, W) float32, H and W of the original image
    target   the target string
    method   the method string
    params   the values that were used, defaults included
    score    the explained number on the unchanged image
    ledger   LRP: rows (layer, absorbed) with score = values.sum() + sum of absorbed; integrated gradients: what the
             baseline scores and what the integration missed; else None
    seconds  wall time of the call
    notes    what the user should know about this map
    trace    detection-trace only: how the detector came to all its boxes in this image; else None
    image    class-model, feature-projection: the image (3, H, W) in [0, 1] that was made; else None
    panels   occlusion-panels only: what the network did at each position of the window; else None
    """

    values: Tensor
    target: str
    method: str
    params: Mapping[str, Any]
    seed: int
    score: float
    ledger: tuple[tuple[str, float], ...] | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    trace: Trace | None = None
    image: Tensor | None = None
    panels: Panels | None = None


@dataclass(frozen=True, eq=False)
class Peak:
    """The strongest activation of a feature map in one image, and what the cell saw there.

    id          the image's in its dataset
    value       the activation, above 0
    cell        (row, column) in the map
    box         (4,) int64 xyxy in pixels of the image: what the cell can see, clipped to the image
    image_size  (H, W) of the image
    patch       (3, h, w) in [0, 1]: the image in ``box``
    projection  (3, h, w) signed: this cell alone led back by a deconvnet to the network's normalised input, in ``box``
                Both are averaged down where the box has a longer side than the sweep keeps.
    """

    id: str
    value: float
    cell: tuple[int, int]
    box: Tensor
    image_size: tuple[int, int]
    patch: Tensor
    projection: Tensor

    @property
    def whole(self) -> bool:
        """Whether the cell can see all of the image."""
        return self.box.tolist() == [0, 0, self.image_size[1], self.image_size[0]]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One map of a layer over a dataset: its number, in how many images it is above 0 anywhere, and its strongest peaks."""

    feature: int
    active: int
    peaks: tuple[Peak, ...]


@dataclass(frozen=True, eq=False)
class Activations:
    """What the maps of one layer answer to most in a dataset (Zeiler and Fergus 2014, figure 2).

    model, dataset  the strings that name them
    layer           the module, which gives so many ``channels``
    top             so many images were asked for, for each map
    n               images that were looked at
    skipped         (id, reason) of those that could not be
    maps            the chosen ones, each with at most ``top`` peaks by falling value, all from different images
    notes           what the user should know
    """

    model: str
    dataset: str
    task: str
    layer: str
    channels: int
    top: int
    n: int
    skipped: tuple[tuple[str, str], ...]
    maps: tuple[FeatureMap, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Refusal:
    """A pair of target and method that cannot be explained, and the one line that says why."""

    target: str
    method: str
    error: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image, what the model says about it, and why: at most one attribution or refusal per target and method.

    model         the model string
    name          what the image is called, without folders
    image         (3, H, W) in [0, 1]; None where only the maps are at hand
    prediction    None where only the maps are at hand
    targets       target strings, in the order of the rows
    methods       method strings, in the order of the columns
    """

    model: str
    name: str
    image: Tensor | None
    prediction: Prediction | None
    targets: tuple[str, ...]
    methods: tuple[str, ...]
    attributions: tuple[Attribution | Refusal, ...]

    def __post_init__(self) -> None:
        pairs = [(each.target, each.method) for each in self.attributions]
        if len(set(pairs)) < len(pairs):
            raise ValueError("a pair of target and method stands in this explanation twice")
        if not {target for target, _ in pairs} <= set(self.targets) or not {method for _, method in pairs} <= set(self.methods):
            raise ValueError("an attribution belongs to none of this explanation's targets and methods")

    def pair(self, target: str, method: str) -> Attribution | Refusal | None:
        """What came of one target and one method; None where it was not asked for."""
        return next((each for each in self.attributions if (each.target, each.method) == (target, method)), None)

    def pairs(self) -> Iterator[Attribution | Refusal]:
        """All of them, by target and then by method."""
        for target in self.targets:
            for method in self.methods:
                if (each := self.pair(target, method)) is not None:
                    yield each


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Accuracy drops of one model on one dataset; ``report`` has the layout of report.json.

    ``records`` are rows of sample x condition x severity with sufficient statistics, from which any
    other interval can be computed without the model.  ``examples`` are pictures for the report:
    (id, condition, image (3,H,W)) of a few items.
    """

    report: Mapping[str, Any]
    records: Any
    run: Mapping[str, Any]
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class AuditReport(ProbeResult):
    """A probe run and what follows from it: ``report`` also holds "findings", one for each cue family, and "spots"."""
