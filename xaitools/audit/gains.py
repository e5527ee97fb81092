"""Which class a change draws decisions to: what artefacts leave under MEASURED, with intervals."""

from __future__ import annotations

import numpy as np

from ..metrics.statistics import pooled_mean
from .examples import shown
from .records import MEASURED
from .tally import Facts, Tally

GAIN = "gain."
"""Of the names that a probe measures: what the model gives to a class after the change less what it gave before."""


def add_gains(tally: Tally, report: Facts) -> None:
    """Adds "gains" to the probes that measured them: rows {"class", "value", "ci"}, the class that gains most first.

    ``value`` is a mean over images: of the share of pixels that the class has, of boxes found, or of being the answer; with the
    draws of the drop.
    """
    for entry in tally.plan.probes:
        row = report["probes"][entry.name]
        good = tally.good(shown(entry, row))
        names = dict.fromkeys(name for each in good.values() for name in each.statistics if name.startswith(MEASURED + GAIN))
        if not names:
            continue
        weights = tally.weights(list(good), int(tally.plan.params[entry.name]["bootstraps"]))
        units = tally.units(list(good))
        found = {
            name.removeprefix(MEASURED + GAIN): pooled_mean(
                [np.ravel(each.statistics[name]).tolist() for each in good.values()], weights, units
            )
            for name in names
        }
        row["gains"] = [{"class": name, **found[name]} for name in sorted(found, key=lambda name: (-found[name]["value"], name))]
