"""What must be said about attacks: one that fails shows nothing, and several signs betray one that is broken.

Athalye, Carlini and Wagner (2018), section 3.1, list the signs of masked gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..probes import PROBES, Probe
from .plan import CLEAN, Condition

if TYPE_CHECKING:
    from .tally import Tally

SINGLE = "fgsm"

BLIND = 0.01
"""Share of images without a usable gradient that is worth a warning."""

STEP = "loss_step_"
"""How the numbers that an attack measured after each step are called."""


def attack_warnings(tally: Tally) -> list[str]:
    attacks = [entry for entry in tally.plan.probes if entry.family == "adversarial" and entry.control]
    return [words for entry in attacks for severity in _run(tally, entry) for words in _broken(tally, entry, severity)]


def attack_notes(entry: Probe, params: Mapping[str, Any]) -> list[str]:
    if entry.family != "adversarial" or not entry.control:
        return []
    notes = ["an upper bound on robustness: a better attack may find more; the interval covers the choice of images alone"]
    if entry.name == "ensemble":
        notes.append(f"SEA-lite ({params['steps']} iterations), optimistic: the published ensemble has 300 of each of its losses")
    return notes


def curve(measured: Mapping[str, float]) -> list[float]:
    """The mean loss at the start and after each step; empty where no attack measured it.

    >>> curve({"loss_step_1": 3.0, "loss_before": 1.0, "loss_step_0": 2.0})
    [2.0, 3.0]
    """
    return [
        measured[name] for name in sorted((name for name in measured if name.startswith(STEP)), key=lambda name: int(name[len(STEP) :]))
    ]


def _run(tally: Tally, entry: Probe) -> list[int]:
    return [severity for severity in tally.plan.severities[entry.name] if severity and tally.good(Condition(entry.images, severity))]


def _broken(tally: Tally, entry: Probe, severity: int) -> Iterator[str]:
    condition, params = Condition(entry.images, severity), tally.plan.params[entry.name]
    reference = CLEAN if entry.reference == CLEAN.probe else Condition(entry.reference, severity)
    measured = tally.measured(condition)
    if measured.get("loss_after", np.inf) <= measured.get("loss_before", -np.inf):
        yield f"{condition.name}: the attack did not raise the loss; its gradients may be masked, so robustness is not shown"
    elif len(steps := curve(measured)) > 2 and steps[-1] <= steps[0]:
        yield f"{condition.name}: the loss does not rise over the steps; the gradient does not lead, so robustness is not shown"
    if (blind := measured.get("without_gradient", 0.0)) > BLIND:
        yield (f"{condition.name}: on {100 * blind:.0f} % of the images the gradient is 0 everywhere or not finite; it may be "
               "masked, so robustness is not shown")  # fmt: skip
    if _above(tally, Condition(entry.control, severity), condition) is False and _above(tally, reference, condition) is not None:
        yield f"{condition.name}: hurts no more, beyond the interval, than a change of the same size that is not aimed ({entry.control})"
    weaker = _weaker(tally, entry, severity)
    if weaker is not None and _above(tally, condition, weaker):
        yield (f"{condition.name}: hurts less than the smaller {weaker.name}, beyond the interval; the larger attack is broken or its "
               "gradient masked")  # fmt: skip
    single = PROBES[SINGLE]
    if entry.name != SINGLE and single in tally.plan.probes and "steps" in params and entry.control == single.control:
        one = Condition(SINGLE, severity)
        if params["eps"] == tally.plan.params[SINGLE]["eps"] and _above(tally, condition, one):
            yield f"{condition.name}: the single step of {SINGLE} hurts more, beyond the interval; the gradient may be masked"


def _weaker(tally: Tally, entry: Probe, severity: int) -> Condition | None:
    """The same attack at the next smaller severity, where severity makes a difference."""
    params, below = tally.plan.params[entry.name], [each for each in _run(tally, entry) if each < severity]
    return Condition(entry.images, max(below)) if below and params.get("eps", params.get("side")) is None else None


def _above(tally: Tally, one: Condition, other: Condition) -> bool | None:
    """Whether the metric under ``one`` is higher than under ``other``, beyond the interval; None where that is undefined."""
    ci = tally.drop(one, other)[0]["ci"]
    return None if ci is None else bool(ci[0] > 0)
