"""Shares of relevance are means over decisions, and their intervals come from drawing images."""

import numpy as np
import pytest

from tests.audit.test_decisions import Marked, red
from tests.audit.test_shift import CROSS
from tests.probes.toys import CLASSES, SIDE
from xaitools.audit.decisions import PARTS, Decided, Decisions, measure_decisions
from xaitools.audit.records import Memory
from xaitools.audit.reliance import reliance
from xaitools.metrics.statistics import image_weights, pooled_mean
from xaitools.probes import Context


def test_a_model_that_reads_a_declared_tag_relies_on_it_far_beyond_its_area():
    data = Marked(24)
    found = reliance(measure_decisions(Context(data, red()), range(24), Memory(), method=CROSS), replicates=200)
    disc = found[CLASSES[1]]
    assert disc["n"] == disc["images"] == 12
    declared = disc["parts"]["declared"]
    assert declared["value"] > 0.99 and declared["chance"] == pytest.approx(36 / SIDE**2) and declared["beyond"]["ci"][0] > 0.9
    assert disc["parts"]["object"]["value"] < 0.01 and disc["parts"]["object"]["beyond"]["ci"][1] < 0
    assert disc["parts"]["others"]["n"] == 0 and disc["parts"]["others"]["value"] is None


def test_means_are_over_decisions_and_intervals_over_images():
    dice = np.random.default_rng(0)
    empty, areas = np.zeros((16, 16)), np.full(len(PARTS), 1 / len(PARTS))
    made = []
    for image in range(20):
        shares = dice.dirichlet(np.ones(len(PARTS)))  # decisions of one image are all alike
        made += [Decided(f"{image}", f"box:{number}:vs:", 0, 0.9, True, np.zeros(4), 1.0, empty, empty, shares, areas)
                 for number in range(1 + 4 * (image % 2))]  # fmt: skip
    found = reliance(Decisions(("a", "b"), "lrp", "", tuple(made), {}))
    assert set(found) == {"a"} and (found["a"]["n"], found["a"]["images"]) == (60, 20)
    for place, part in enumerate(PARTS):
        facts, values = found["a"]["parts"][part], [each.shares[place] for each in made]
        assert facts["value"] == pytest.approx(np.mean(values)) and facts["beyond"]["value"] == pytest.approx(np.mean(values) - 1 / 6)
        groups = [[value for value, each in zip(values, made, strict=True) if each.item == f"{image}"] for image in range(20)]
        weights = image_weights([str(image) for image in range(20)], seed=1, replicates=2000)
        assert facts["ci"] == pytest.approx(pooled_mean(groups, weights)["ci"], abs=0.015)


def test_few_images_have_no_interval():
    one = Decided("x", "class:a:vs:", 0, 0.9, True, np.zeros(4), 1.0, np.zeros((16, 16)), np.zeros((16, 16)),
                  np.eye(len(PARTS))[0], np.full(len(PARTS), 1 / len(PARTS)))  # fmt: skip
    facts = reliance(Decisions(("a",), "lrp", "", (one,), {}))["a"]["parts"]["object"]
    assert facts["value"] == 1.0 and facts["ci"] is None
