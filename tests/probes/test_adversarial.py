from __future__ import annotations

import pytest
import torch

from tests.nets import detector
from tests.probes.toys import Boxes, Shapes, reader
from xaitools.probes import PROBES, Context, change
from xaitools.probes.adversarial import RADII
from xaitools.types import Sample


@pytest.fixture(params=["segmentation", "detection"])
def where(request):
    return Context(Shapes(), reader("object") if request.param == "segmentation" else detector())


def attack(where: Context, name: str = "pgd", severity: int = 3, **params: object) -> tuple[list[Sample], list[Sample]]:
    samples = [where.dataset[index] for index in range(3)]
    return samples, change(name, samples, severity, where, params=params)  # type: ignore[return-value]


def losses(where: Context, samples: list[Sample], truths: list[Sample]) -> torch.Tensor:
    with torch.no_grad():
        return where.model.loss(torch.stack([sample.image for sample in samples]), [where.truth(each) for each in truths])


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_pgd_stays_in_the_ball_and_raises_the_loss_more_than_noise_does(where, severity):
    samples, attacked = attack(where, severity=severity)
    _, noisy = attack(where, "random_direction", severity=severity)
    for name, changed in (("pgd", attacked), ("random_direction", noisy)):
        for before, after in zip(samples, changed, strict=True):
            assert float((before.image - after.image).abs().max()) <= RADII[severity - 1] + 1e-6, name
    assert bool((losses(where, attacked, samples) > losses(where, samples, samples)).all())
    assert bool((losses(where, attacked, samples) > losses(where, noisy, samples)).all())


def test_recorded_losses_are_those_of_the_images(where):
    samples, attacked = attack(where)
    measured = [sample.tags["measured"] for sample in attacked]
    assert torch.allclose(torch.tensor([each["loss_before"] for each in measured]), losses(where, samples, samples).float(), rtol=1e-4)
    assert torch.allclose(torch.tensor([each["loss_after"] for each in measured]), losses(where, attacked, samples).float(), rtol=1e-4)


def test_eps_steps_and_restarts_are_obeyed(where):
    samples, attacked = attack(where, eps=0.1, steps=2)
    sizes = [float((before.image - after.image).abs().max()) for before, after in zip(samples, attacked, strict=True)]
    assert all(0.05 < size <= 0.1 + 1e-6 for size in sizes)
    once, more = (losses(where, attack(where, eps=0.1, steps=2, objective="own", restarts=each)[1], samples) for each in (1, 3))
    assert bool((more >= once - 1e-5).all())


def test_an_attack_leaves_no_trace(where):
    module = where.model.module.train()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    flags = [parameter.requires_grad for parameter in module.parameters()]
    attack(where, steps=1)
    assert module.training and flags == [parameter.requires_grad for parameter in module.parameters()]
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_model_without_gradients_is_refused_in_words():
    assert "no gradients" in Context(Shapes(), Boxes()).lacks(PROBES["pgd"].needs)
    assert Context(Shapes(), reader("object")).lacks(PROBES["pgd"].needs) is None
