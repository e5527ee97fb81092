"""Signs of a broken attack, each made by hand."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from xaitools.audit.attacks import attack_notes, attack_warnings
from xaitools.audit.run import probe
from xaitools.data import load_dataset
from xaitools.probes import PROBES
from xaitools.zoo import load_model

SOUND = {"loss_before": 1.0, "loss_after": 3.0, "loss_step_0": 1.1, "loss_step_1": 2.0, "loss_step_2": 3.0, "without_gradient": 0.0}
VALUES = {
    "clean-0": 0.9, "pgd-1": 0.6, "pgd-3": 0.1, "fgsm-1": 0.7, "fgsm-3": 0.4, "random_direction-1": 0.9, "random_direction-3": 0.89
}  # fmt: skip


def told(values: dict[str, float] | None = None, **measured: float) -> list[str]:
    """The warnings of a run whose metrics are VALUES with ``values``, known to 2 points, where pgd measured SOUND with ``measured``."""
    values = VALUES | (values or {})
    params = {"pgd": {"eps": None, "steps": 10}, "fgsm": {"eps": None}}
    plan = SimpleNamespace(probes=(PROBES["pgd"], PROBES["fgsm"]), params=params, severities={"pgd": (1, 3), "fgsm": (1, 3)})

    def drop(one, other):
        off = values[one.name] - values[other.name]
        return {"ci": [off - 0.02, off + 0.02]}, None

    return attack_warnings(SimpleNamespace(
        plan=plan, good=lambda condition: {"a": 1}, drop=drop,
        measured=lambda condition: SOUND | measured if condition.probe == "pgd" else {},
    ))  # type: ignore[arg-type]  # fmt: skip


def test_a_sound_attack_is_not_accused():
    assert told() == []
    assert told({"pgd-3": 0.61, "fgsm-3": 0.6}) == []  # within the interval


@pytest.mark.parametrize(
    ("values", "measured", "words"),
    [
        ({}, {"loss_after": 1.0}, "did not raise the loss"),
        ({}, {"loss_step_2": 1.0}, "does not rise over the steps"),
        ({}, {"without_gradient": 0.25}, "on 25 % of the images the gradient is 0"),
        ({"random_direction-3": 0.1}, {}, "pgd-3: hurts no more"),
        ({"pgd-3": 0.7, "fgsm-3": 0.8}, {}, "pgd-3: hurts less than the smaller pgd-1"),
        ({"fgsm-3": 0.0}, {}, "pgd-3: the single step of fgsm hurts more"),
    ],
)
def test_each_sign_is_reported(values, measured, words):
    assert any(words in each for each in told(values, **measured))


def test_a_cheap_ensemble_says_so():
    [_, words] = attack_notes(PROBES["ensemble"], {"steps": 10})
    assert words.startswith("SEA-lite (10 iterations), optimistic")
    assert attack_notes(PROBES["random_direction"], {}) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["unet-scenes", "yolo-scenes"])
def test_damage_does_not_fall_with_the_radius(name):
    model, data = load_model(name), load_dataset("scenes:test?n=100")
    report = probe(model, data, ["pgd"], severities=(1, 2, 3, 4, 5), limit=24).report
    values = [each["value"] for each in report["probes"]["pgd"]["severities"]]
    assert values[4] < 0.15 < values[0]
    assert not any("hurts less than the smaller" in each or "did not raise" in each for each in report["warnings"])
    assert values == sorted(values, reverse=True) or max(b - a for a, b in pairwise(values)) < 0.03
