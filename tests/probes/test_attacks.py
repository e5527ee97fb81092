"""The attacks beside pgd, against plain second ways, and objectives on a detector of which every output is known."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.probes.toys import Shapes, reader
from xaitools.adapters import PlainDetector, SegmentationModel
from xaitools.audit.plan import make_plan
from xaitools.errors import XaiError
from xaitools.probes import PROBES, Context, change
from xaitools.probes.adversarial.ascent import Ball
from xaitools.probes.adversarial.objectives import mistaken
from xaitools.probes.adversarial.patch import place
from xaitools.probes.adversarial.segmentation import ENSEMBLE, _cospgd, _own_miou, _segpgd
from xaitools.types import IGNORE, Sample

EPS = 0.2


@pytest.fixture(scope="module")
def where() -> Context:
    return Context(Shapes(), reader("object"))


def attacked(where: Context, name: str, **params: object) -> tuple[list[Sample], list[Sample]]:
    samples = [where.dataset[index] for index in range(2)]
    return samples, change(name, samples, 3, where, params=params)  # type: ignore[return-value]


def pixels() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, 3, 4, 5, generator=generator)
    truth = torch.randint(3, (1, 4, 5), generator=generator)
    entropy = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    return logits, truth, entropy, logits.argmax(1) == truth


@pytest.mark.parametrize("done", [0.0, 0.4, 0.9])
def test_dense_losses_are_those_of_the_papers(done):
    logits, truth, entropy, right = pixels()
    ways = [_segpgd, _cospgd, *ENSEMBLE, mistaken]
    segpgd, cospgd, divergence, masked, balanced, missed = (way(logits, truth, entropy, right, done) for way in ways)
    counts = np.bincount(truth.flatten(), minlength=3)
    for y in range(4):
        for x in range(5):
            p = np.exp(logits[0, :, y, x].numpy().astype(float))
            p, label = p / p.sum(), int(truth[0, y, x])
            one, hit = np.eye(3)[label], p.argmax() == label
            entropy_here, middle = -np.log(p[label]), (p + one) / 2
            kl = [sum(a * np.log(a / b) for a, b in zip(side, middle, strict=True) if a > 0) for side in (p, one)]
            expected = [
                entropy_here * (1 - done / 2 if hit else done / 2),
                entropy_here * (p @ one) / np.linalg.norm(p),
                sum(kl) / 2,
                entropy_here * hit,
                entropy_here * hit * 20 / counts[label],
                1 - p[label],
            ]
            got = [float(each[0, y, x]) for each in (segpgd, cospgd, divergence, masked, balanced, missed)]
            assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["fgsm", "segpgd", "cospgd", "ensemble"])
def test_attacks_stay_in_the_ball_and_raise_the_loss(where, name):
    samples, changed = attacked(where, name, eps=EPS)
    for before, after in zip(samples, changed, strict=True):
        assert float((after.image - before.image).abs().max()) <= EPS + 1e-6
        assert after.tags["measured"]["loss_after"] > after.tags["measured"]["loss_before"]
        assert after.tags["measured"]["without_gradient"] == 0


def test_fgsm_is_one_step_along_the_sign(where):
    samples, (after, *_) = attacked(where, "fgsm", eps=EPS)
    image = samples[0].image[None].clone().requires_grad_()
    chances = where.model.logits_from(where.model.normalise(image)).softmax(1)
    (gradient,) = torch.autograd.grad(-chances.gather(1, where.truth(samples[0]).semantic[None, None]).sum(), image)
    assert torch.allclose(after.image, (samples[0].image + EPS * gradient[0].sign()).clamp(0, 1), atol=1e-6)
    _, (own, *_) = attacked(where, "fgsm", eps=EPS, objective="own")
    (gradient,) = torch.autograd.grad(where.model.loss(image, [where.truth(samples[0])]).sum(), image)
    assert torch.allclose(own.image, (samples[0].image + EPS * gradient[0].sign()).clamp(0, 1), atol=1e-6)


def test_the_ensemble_leaves_each_image_no_more_than_segpgd_does(where):
    samples, worst = attacked(where, "ensemble", eps=EPS, steps=20)
    _, one = attacked(where, "segpgd", eps=EPS, steps=20)
    truths = [where.truth(sample) for sample in samples]
    values = [_own_miou(where.model, truths, torch.stack([each.image for each in found])) for found in (worst, one)]
    assert bool((values[0] <= values[1] + 0.02).all())


def test_euclidean_attack_and_control_have_the_same_norm(where):
    samples, changed = attacked(where, "pgd_l2", eps=0.01, steps=3)
    _, random = attacked(where, "random_l2", eps=0.01)
    for before, one, other in zip(samples, changed, random, strict=True):
        norms = [float((after.image - before.image).norm()) for after in (one, other)]
        assert norms == pytest.approx([0.01 * sqrt(before.image.numel())] * 2, rel=0.02)
    clean, off = torch.full((1, 3, 8, 8), 0.5), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for ball in (Ball(0.1), Ball(0.1, euclidean=True)):
        inside = ball.inside(clean + off, clean)
        assert torch.allclose(ball.inside(inside, clean), inside, atol=1e-6)
        assert bool(((inside - clean) * off >= 0).all())


class Lamps(nn.Module):
    """Two boxes; red moves their right edges, green names them, blue says how sure they are.  The second lies where nothing is."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.gain, self.classes = nn.Parameter(torch.tensor(12.0)), classes

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        red, green, blue = (x.mean((2, 3)) - 0.5).unbind(1)
        boxes = x.new_tensor([[2.0, 2, 14, 14], [18, 18, 30, 30]]).expand(len(x), -1, -1).clone()
        boxes[:, :, 2] += 40 * red[:, None]
        name = self.gain * (green + 0.15)
        logits = torch.stack([name, -name], 1)[:, None, : self.classes].expand(-1, 2, -1)
        objectness = self.gain * (blue[:, None] + torch.tensor([0.15, -0.15]))
        return {"boxes": boxes, "logits": logits, "objectness": objectness}


class Lit:
    """One object where ``Lamps`` sees its first box."""

    task, name = "detection", "lit"
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()
    ids = ("a", "b")

    def __init__(self, classes: int = 2) -> None:
        self.classes = ("lamp", "star")[:classes]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, 32, 32), 0.5)
        return Sample(self.ids[index], image, boxes=torch.tensor([[2.0, 2, 14, 14]]), labels=torch.tensor([0]))


def lamps(classes: int = 2) -> Context:
    data = Lit(classes)
    return Context(data, PlainDetector(Lamps(classes), data.classes, background="none", score_threshold=0.3))


def test_each_objective_does_what_it_says_and_nothing_else():
    where = lamps()
    clean = where.dataset[0]
    found = {}
    for name in ("vanish", "class", "box", "fabricate", "loss"):
        [after] = change("pgd", [clean], 3, where, params={"eps": 0.25, "objective": name})
        found[name] = where.model.predict(after.image[None])[0]
    before = where.model.predict(clean.image[None])[0]
    assert before.labels.tolist() == [0]
    assert not len(found["vanish"].labels)
    assert 1 in found["class"].labels.tolist() and 0 not in found["class"].labels.tolist()
    assert torch.allclose(found["class"].boxes[0, 2], before.boxes[0, 2], atol=1.0)
    assert found["box"].labels[0] == 0 and abs(float(found["box"].boxes[0, 2]) - 14) > 6
    assert len(found["fabricate"].labels) == 2
    assert 0 not in found["loss"].labels.tolist()


class Seesaw(nn.Module):
    """The brighter, the more the right half is of class 0 and the less the left half is."""

    def forward(self, x: Tensor) -> Tensor:
        light = 10 * (x.mean((1, 2, 3)) - 0.5)
        halves = torch.stack([-4 - light, 1 + light], 1).repeat_interleave(4, 1)[:, None].expand(-1, 8, -1)
        return torch.stack([halves, torch.zeros_like(halves)], 1)


class Grey(Lit):
    task, classes, semantic_classes = "segmentation", ("paper", "ink"), ("paper", "ink")

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], torch.full((3, 8, 8), 0.5), semantic=torch.zeros(8, 8, dtype=torch.long))


def test_pixels_that_are_wrong_already_do_not_lead():
    where = Context(Grey(), SegmentationModel(Seesaw(), Grey.classes))
    left = {}
    for objective in ("loss", "own"):
        [after] = change("pgd", [where.dataset[0]], 3, where, params={"eps": 0.2, "objective": objective})
        left[objective] = float((where.model.predict(after.image[None])[0].semantic == 0).float().mean())
    # the margins of the halves are -4 - 10 light and 1 + 10 light: the cross-entropy weighs them by 0.98 and 0.27, against each other
    assert left == {"loss": 0.0, "own": 0.5}


def test_objectives_that_a_model_does_not_have_are_refused_in_words(where):
    for context, name, hint in ((where, "vanish", "no detector"), (lamps(), "hide", "unknown"), (lamps(1), "class", "one class")):
        with pytest.raises(XaiError, match=hint):
            change("pgd", [context.dataset[0]], 3, context, params={"objective": name})
    assert "every pixel" in lamps().lacks(PROBES["segpgd"].needs)


def test_a_patch_is_trained_on_images_that_are_not_scored_and_hides_no_object(where):
    params = {"patch": {"steps": 4, "train": 3}}
    plan, context = make_plan(where.model, Shapes(), ["patch"], params=params)
    held = set(context.held_out(3))
    assert len(held) == 3 and not held & set(plan.members["patch"]) and plan.members["patch"] == plan.members["shuffled_patch"]
    samples = [where.dataset[index] for index in plan.members["patch"]][:3]
    together = change("patch", samples, 3, where, params=params["patch"])
    [alone] = change("patch", [samples[2]], 3, Context(Shapes(), where.model), seed=7, params=params["patch"])
    assert torch.equal(alone.image, together[2].image)
    for before, after in zip(samples, together, strict=True):
        top, left, side = place(where, before, 0.2)
        assert side == 6
        under = torch.zeros(32, 32, dtype=torch.bool)
        under[top : top + side, left : left + side] = True
        assert not bool((under & where.foreground(before)).any())
        assert bool((after.semantic[under] == IGNORE).all()) and torch.equal(after.semantic[~under], before.semantic[~under])
        assert torch.equal(after.image[:, ~under], before.image[:, ~under])
        assert after.tags["measured"]["loss_after"] >= after.tags["measured"]["loss_before"]
