"""Trains a part model as a latent linear SVM, class by class (Felzenszwalb et al. 2010, sections 4 and 5).

Given where every filter lies, a score is linear in the model (section 3.1).  So training takes turns: each object gets
the best placement under the present model, then hard negatives and the convex problem that is left.
Where we differ: components begin as clusters of the objects' looks, not of their aspect ratios, since our objects turn
in the plane; given the placements each component is an SVM of its own, with squared hinges, so that Newton's method
finds its one minimum; images with objects of the class give negatives too, from where none of these objects is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ..architectures.dpm import DPM, ORIENTATIONS, Level, Places, framing, hog
from ..data import Dataset
from ..errors import ModelError
from .detection import pairs_of
from .loop import State

SAME = 0.7
"""Overlap with an object from which on a root may be its placement; an object that no root overlaps so takes the best that does."""
OTHER = 0.3
"""Overlap with every object of the class below which a root is a negative."""
FLATTEST = 0.01
"""The least quadratic cost of a displacement (section 5.1)."""
APIECE = 10
"""The most negatives that one image gives a component at a time."""
FREE, STIFF = 10.0, 0.1
"""How far the bias and the costs of displacements may lie off what is expected of them, where 1 is for a filter's weight."""
RIDGE = 5.0
"""Holds back what is concluded from a few displacements."""
COSTS = (0.0, 0.0, 0.1, 0.1)
"""Expected costs of displacements, with which parts begin (section 5.2)."""


class Scene(NamedTuple):
    """A uint8 image (3, H, W), its pyramid in half precision, its objects xyxy in pixels (T, 4) and their classes (T,)."""

    image: Tensor
    levels: list[Level]
    boxes: Tensor
    labels: Tensor


def train(
    network: DPM, training: Dataset, recipe: Mapping[str, Any], out: Path, *, resume: bool, say: Callable[[str], None]
) -> State:  # fmt: skip
    """One class after the other, with a checkpoint after each; every tenth image teaches only the calibration."""
    checkpoint, done = out / "checkpoint.safetensors", 0
    if resume and checkpoint.is_file():
        state = load_file(checkpoint)
        done = int(state.pop("done"))
        network.load_state_dict(state)
        say(f"goes on after class {done}/{network.classes}")
    with torch.no_grad():
        scenes = [_scene(network, image, target) for image, target in pairs_of(training)]
        say(f"{len(scenes)} training images")
        taught = [scene for index, scene in enumerate(scenes) if index % 10]
        _check(training, taught, 2 * network.components)
        for label in range(done, network.classes):
            for line in Teacher(network, label, taught, recipe["training"]).teach():
                say(f"class {label + 1}/{network.classes}  {line}")
            _save(checkpoint, network, label + 1)
        calibrate(network, scenes[::10])
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def _scene(network: DPM, image: Tensor, target: Mapping[str, Tensor]) -> Scene:
    levels = [Level(level.root.half(), level.part.half(), level.stride) for level in network.pyramid(image.float() / 255)]
    return Scene(image, levels, target["boxes"], target["labels"] - 1)


def _check(training: Dataset, scenes: Sequence[Scene], least: int) -> None:
    for label, name in enumerate(training.classes):
        count = sum(int((scene.labels == label).sum()) for scene in scenes)
        if count < least:
            raise ModelError(f"{training.name}: {count} objects of class {name!r} to learn from; expected {least}, give more images")


def _save(path: Path, network: DPM, done: int) -> None:
    part = path.with_suffix(".part")
    save_file({key: value.detach().contiguous() for key, value in network.state_dict().items()} | {"done": torch.tensor(done)}, part)
    os.replace(part, path)


class Hypotheses(NamedTuple):
    """All M placements of the roots in a scene: number of the level (M,), place, score (M,), and root xyxy in pixels (M, 4)."""

    level: Tensor
    places: Places
    scores: Tensor
    roots: Tensor


class Placed(NamedTuple):
    """M hypotheses in full: component (M,), root xyxy (M, 4), displacements (M, P, 2) and the vectors psi of section 3.1 (M, D)."""

    component: Tensor
    roots: Tensor
    displacements: Tensor
    vectors: Tensor


class Teacher:
    """Teaches the components of class ``label``, first roots alone and then with parts.

    The recipe's training: ``weight`` is C of section 4, ``root_rounds`` and ``rounds`` are the turns without and with
    parts, ``passes`` how often each of them mines negatives, ``mined`` from how many images.
    """

    def __init__(self, network: DPM, label: int, scenes: Sequence[Scene], settings: Mapping[str, Any]) -> None:
        self.network, self.full, self.scenes = network.only(label, parts=False), network.only(label), scenes
        self.own = [scene.boxes[scene.labels == label] for scene in scenes]
        self.weight, self.passes, self.mined = float(settings["weight"]), int(settings["passes"]), min(len(scenes), int(settings["mined"]))
        self.root_rounds, self.rounds = int(settings["root_rounds"]), int(settings["rounds"])
        self.generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + label)
        self.order = itertools.cycle(torch.randperm(len(scenes), generator=self.generator).tolist())
        """In which the scenes are mined: all before one is mined again."""
        self.negatives = self.none()

    def none(self) -> list[Tensor]:
        """No negatives, for each component (0, D)."""
        return [torch.zeros(0, len(vector(self.network, 0)))] * self.network.components

    def teach(self) -> Iterator[str]:
        """Yields a line on each turn."""
        self.begin()
        for turn in range(self.root_rounds):
            yield f"roots {turn + 1}/{self.root_rounds}  {self.turn()}"
        self.add_parts()
        for turn in range(self.rounds):
            yield f"parts {turn + 1}/{self.rounds}  {self.turn()}"
        self.fit_frames()

    def begin(self) -> None:
        """Clusters the objects and learns a root for each cluster, from its objects warped to one shape against random places."""
        network, side = self.network, self.network.side - 2
        for tensor in self.full.state_dict().values():
            tensor.zero_()
        own = [(scene.image, box) for scene, boxes in zip(self.scenes, self.own, strict=True) for box in boxes]
        looks = torch.stack([warped(image, box, side, side, network.cell) for image, box in own])
        cluster = clusters(looks[:, :ORIENTATIONS].flatten(1), network.components, self.generator)
        for component in range(network.components):
            network.extent[component] = extent(torch.cat(self.own)[cluster == component], side**2, network.side)
        self.mine(chance=True)
        for component in range(network.components):
            rows, columns = network.extent[component].tolist()
            mine = [own[index] for index in torch.where(cluster == component)[0].tolist()]
            roots = torch.stack([warped(image, box, rows, columns, network.cell) for image, box in mine])
            roots = F.pad(roots, (0, network.side - columns, 0, network.side - rows))
            self.solve(component, F.pad(roots.flatten(1), (1, 0), value=1), len(own))

    def turn(self) -> str:
        """Places the objects; then mines negatives and learns, several times.  Returns what there is to say of it."""
        placed = self.placed()
        for _ in range(self.passes):
            self.mine()
            for component in range(self.network.components):
                self.solve(component, placed.vectors[placed.component == component], len(placed.component))
        objects = ", ".join(map(str, placed.component.bincount(minlength=self.network.components).tolist()))
        return f"objects of each component {objects}; {sum(map(len, self.negatives))} hard negatives"

    def placed(self) -> Placed:
        """Every object of the class with the best of its placements, in the order of the boxes."""
        found = []
        for scene, own in zip(self.scenes, self.own, strict=True):
            if len(own):
                hypotheses, answers = self.hypotheses(scene)
                overlaps = box_iou(own, hypotheses.roots)
                scores = torch.where(overlaps >= SAME, hypotheses.scores, -torch.inf)
                found.append(
                    self.take(scene, hypotheses, answers, torch.where(scores.amax(1).isfinite(), scores.argmax(1), overlaps.argmax(1)))
                )
        return Placed(*map(torch.cat, zip(*found, strict=True)))

    def mine(self, chance: bool = False) -> None:
        """Forgets the negatives that are no longer hard and adds those that some images hold (section 4.4), or random ones."""
        network = self.network
        for component, vectors in enumerate(self.negatives):
            self.negatives[component] = vectors[vectors @ vector(network, component) > -1]
        found = []
        for index in itertools.islice(self.order, self.mined):
            hypotheses, answers = self.hypotheses(self.scenes[index])
            scores = torch.rand(len(hypotheses.scores), generator=self.generator) if chance else hypotheses.scores
            if len(self.own[index]):
                scores = torch.where(box_iou(self.own[index], hypotheses.roots).amax(0) < OTHER, scores, -torch.inf)
            hard = torch.cat([_highest(scores, hypotheses.places.component == k) for k in range(network.components)])
            found.append(self.take(self.scenes[index], hypotheses, answers, hard))
        placed = Placed(*map(torch.cat, zip(*found, strict=True)))
        for component, vectors in enumerate(self.negatives):
            self.negatives[component] = torch.cat([vectors, placed.vectors[placed.component == component]])

    def hypotheses(self, scene: Scene) -> tuple[Hypotheses, list[Tensor]]:
        """All placements, and what the part filters answer on each level."""
        found, answers = [], []
        for number, half in enumerate(scene.levels):
            level = _single(half)
            answers.append(self.network.answers(level))
            scores = self.network.scores(level, answers[-1])
            places = Places(*torch.where(scores > -torch.inf))
            found.append((torch.full_like(places.row, number), *places, scores[places], self.network.roots(level, places)))
        numbers, component, row, column, all_scores, roots = map(torch.cat, zip(*found, strict=True))
        return Hypotheses(numbers, Places(component, row, column), all_scores, roots), answers

    def take(self, scene: Scene, hypotheses: Hypotheses, answers: Sequence[Tensor], chosen: Tensor) -> Placed:
        """The ``chosen`` hypotheses (M,) in full, in their order."""
        displacements = torch.zeros(len(chosen), *self.network.anchor.shape[1:], dtype=torch.long)
        vectors = torch.zeros(len(chosen), len(vector(self.network, 0)))
        for number in hypotheses.level[chosen].unique().tolist():
            here = hypotheses.level[chosen] == number
            places = Places(*(each[chosen[here]] for each in hypotheses.places))
            displacements[here] = self.network.displacements(places, answers[number])
            level = _single(scene.levels[number])
            vectors[here] = described(self.network, level, places, displacements[here])
        return Placed(hypotheses.places.component[chosen], hypotheses.roots[chosen], displacements, vectors)

    def solve(self, component: int, positives: Tensor, objects: int) -> None:
        """The component from its positives (M, D), of so many objects of the class, and the negatives at hand.

        All its positives together weigh a fair share of the objects, so that no component starves once it has few.
        """
        negatives = self.negatives[component]
        share = objects / self.network.components / max(1, len(positives))
        weights = self.weight * torch.cat([torch.full((len(positives),), share), torch.ones(len(negatives))])
        filters = self.network.root[0].numel() + self.network.parts[0].numel()
        costs = torch.tensor(COSTS).repeat(len(self.network.deformation[0]))
        prior = torch.cat([torch.zeros(1 + filters), costs])
        spread = torch.cat([torch.tensor([FREE]), torch.ones(filters), torch.full_like(costs, STIFF)])
        rewrite(self.network, component, svm(positives, negatives, weights, prior, spread))

    def add_parts(self) -> None:
        """Parts where the roots are strongest; the negatives of the roots alone are forgotten."""
        self.network = network = self.full
        for component in range(network.components):
            rows, columns = network.extent[component].tolist()
            root = network.root[component, :, :rows, :columns]
            network.parts[component], network.anchor[component] = strongest(root, len(network.parts[component]), network.part)
            network.deformation[component] = torch.tensor(COSTS)
        self.negatives = self.none()

    def fit_frames(self) -> None:
        """Least squares from the displacements in the placements of the objects to their boxes (section 7.1)."""
        placed, boxes = self.placed(), torch.cat(self.own)
        offsets = (boxes - placed.roots) / (placed.roots[:, 2:] - placed.roots[:, :2]).repeat(1, 2)
        for component in range(self.network.components):
            mine = placed.component == component
            x = framing(placed.displacements[mine]).float()
            self.network.frame[component] = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ offsets[mine])


def _single(level: Level) -> Level:
    return Level(level.root.float(), level.part.float(), level.stride)


def _highest(scores: Tensor, eligible: Tensor) -> Tensor:
    """The places of the highest scores above -1, the margin of a negative."""
    which = torch.where(eligible & (scores > -1))[0]
    return which[scores[which].argsort(descending=True, stable=True)[:APIECE]]


# ---- a component as a vector


def vector(network: DPM, component: int) -> Tensor:
    """Bias, root, parts and deformation in one (D,): beta of section 3.1."""
    parts = (network.bias, network.root, network.parts, network.deformation)
    return torch.cat([tensor[component].detach().flatten() for tensor in parts])


def rewrite(network: DPM, component: int, numbers: Tensor) -> None:
    """The inverse of ``vector``; what leaving its place costs a part stays above ``FLATTEST``."""
    parts = [tensor[component] for tensor in (network.bias, network.root, network.parts, network.deformation)]
    for tensor, values in zip(parts, numbers.split([tensor.numel() for tensor in parts]), strict=True):
        tensor.copy_(values.view_as(tensor))
    network.deformation[component, :, 2:].clamp_(min=FLATTEST)


def described(network: DPM, level: Level, places: Places, displacements: Tensor) -> Tensor:
    """(M, D): psi of section 3.1, whose product with ``vector`` of its component is the score of the hypothesis."""
    roots = windows(level.root, places.row, places.column, network.side)
    inside = torch.arange(network.side) < network.extent[places.component][..., None]
    roots = roots * (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    rows, columns = network.corners(places)
    beyond = F.pad(level.part, (0, network.part - 1, 0, network.part - 1))
    parts = windows(beyond, rows + displacements[..., 0], columns + displacements[..., 1], network.part)
    moved = torch.cat([displacements, displacements**2], 2).to(roots)
    return torch.cat([roots.new_ones(len(roots), 1), roots.flatten(1), parts.flatten(1), -moved.flatten(1)], 1)


def windows(features: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """(..., C, side, side) from features (C, H, W), at upper left corners (...)."""
    span = torch.arange(side)
    return features[:, rows[..., None, None] + span[:, None], columns[..., None, None] + span].movedim(0, -3)


# ---- steps of the procedure


def svm(positives: Tensor, negatives: Tensor, weights: Tensor, prior: Tensor, spread: Tensor) -> Tensor:
    """The minimum (D,) of section 4's objective with squared hinges, for vectors (M, D) and the weight C of each example.

    Each number is drawn to ``prior`` (D,), and the less the larger its ``spread`` (D,).  Newton's method for the shares
    of the examples in the solution (Chapelle 2007): those within the margin solve a linear system, which tells who is
    within the margin, and so on until nobody enters or leaves.
    """
    vectors = torch.cat([positives, negatives])
    truth = torch.cat([torch.ones(len(positives)), -torch.ones(len(negatives))]).double()
    before = (vectors @ prior).double()
    vectors *= spread
    products = (vectors @ vectors.T).double()
    shares, within = torch.zeros_like(truth), torch.ones_like(truth, dtype=torch.bool)
    for _ in range(50):
        system = products[within][:, within] + torch.diag(1 / (2 * weights[within].double()))
        shares = torch.zeros_like(truth)
        shares[within] = torch.cholesky_solve((truth - before)[within, None], torch.linalg.cholesky(system))[:, 0]
        now = truth * (before + products @ shares) < 1
        if torch.equal(now, within):
            break
        within = now
    return prior + spread * (shares.float() @ vectors)


def clusters(points: Tensor, count: int, generator: torch.Generator, tries: int = 10) -> Tensor:
    """(N,) from points (N, D): k-means, from starts that prefer far points, the best of several."""
    best, least = torch.zeros(len(points), dtype=torch.long), torch.inf
    for _ in range(tries):
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centres) < count:
            far = torch.cdist(points, centres).amin(1).square() + 1e-9
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        for _ in range(30):
            nearest = torch.cdist(points, centres).argmin(1)
            centres = torch.stack([points[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)])
        distances, nearest = torch.cdist(points, centres).min(1)
        if float(distances.square().sum()) < least:
            best, least = nearest, float(distances.square().sum())
    return best


def extent(boxes: Tensor, area: int, most: int) -> Tensor:
    """(2,): rows and columns of about ``area`` cells with the middle aspect ratio of boxes (N, 4), each at least 2."""
    sides = boxes[:, 2:] - boxes[:, :2]
    aspect = float((sides[:, 0] / sides[:, 1]).median())
    return torch.tensor([(area / aspect) ** 0.5, (area * aspect) ** 0.5]).round().long().clamp(2, most)


def warped(image: Tensor, box: Tensor, rows: int, columns: int, cell: int) -> Tensor:
    """(C, rows, columns): the features of what is in the box (4,) of a uint8 image, at that shape; a cell around is seen too."""
    sides = (box[2:] - box[:2]) / torch.tensor([columns, rows])
    left, top, right, bottom = torch.cat([box[:2] - sides, box[2:] + sides]).round().int().tolist()
    height, width = image.shape[1:]
    y, x = torch.arange(top, bottom).clamp(0, height - 1), torch.arange(left, right).clamp(0, width - 1)
    crop = image[:, y][:, :, x].float() / 255
    crop = F.interpolate(crop[None], ((rows + 2) * cell, (columns + 2) * cell), mode="bilinear", antialias=True)[0]
    return hog(crop, cell)[:, 1:-1, 1:-1]


def strongest(root: Tensor, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Parts (count, C, side, side) and their anchors (count, 2) from a root (C, h, w) at twice its resolution.

    One after the other goes where most of the energy of positive weights is that no other part has (section 5.2).
    """
    fine = F.interpolate(root[None], scale_factor=2, mode="bilinear")[0]
    energy = fine.clamp(min=0).square().sum(0)
    parts, anchors = [], []
    for _ in range(count):
        sums = F.avg_pool2d(energy[None], side, 1)[0]
        y, x = divmod(int(sums.argmax()), sums.shape[1])
        parts.append(fine[:, y : y + side, x : x + side])
        anchors.append((y, x))
        energy[y : y + side, x : x + side] = 0
    return torch.stack(parts), torch.tensor(anchors)


# ---- calibration


def calibrate(network: DPM, scenes: Sequence[Scene]) -> None:
    """Of each class the logistic function from scores to the share of right boxes, on images that taught nothing else."""
    network.platt[:] = torch.tensor([1.0, 0.0])
    found = [network.detect(scene.image.float() / 255) for scene in scenes]
    for label in range(network.classes):
        mine = [each["labels"] == label for each in found]
        margins = [each["scores"][here].logit() for each, here in zip(found, mine, strict=True)]
        right = [
            hits(each["boxes"][here], scene.boxes[scene.labels == label]) for each, here, scene in zip(found, mine, scenes, strict=True)
        ]
        network.platt[label] = logistic(torch.cat(margins), torch.cat(right))


def hits(boxes: Tensor, truths: Tensor) -> Tensor:
    """(D,) bool: which boxes, best first, overlap half or more with a truth that no better one has."""
    found = torch.zeros(len(boxes), dtype=torch.bool)
    if len(boxes) and len(truths):
        overlaps, nearest = box_iou(boxes, truths).max(1)
        for truth in range(len(truths)):
            found[torch.where((nearest == truth) & (overlaps >= 0.5))[0][:1]] = True
    return found


def logistic(margins: Tensor, right: Tensor) -> Tensor:
    """(2,): slope and shift of the probability that a margin is right (Platt 1999), a little unsure of both; it never falls."""
    yes, no = right.sum(), (~right).sum()
    target = torch.where(right, (yes + 1) / (yes + 2), 1 / (no + 2)).to(margins)
    line = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = F.binary_cross_entropy_with_logits(line[0].exp() * margins + line[1], target)
        value.backward()
        return value

    if len(margins):
        optimizer.step(loss)
    return torch.stack([line[0].exp(), line[1]]).detach()
