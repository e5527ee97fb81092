"""What a cluster shares is moved about, on models that read it and on models that do not."""

import numpy as np
import pytest
import torch

from tests.audit.test_decisions import Marked, red
from tests.audit.test_shift import CORNER, CROSS
from tests.probes.toys import CLASSES, SIDE, reader
from xaitools.audit.decisions import measure_decisions
from xaitools.audit.records import Memory
from xaitools.audit.spray import shared_box
from xaitools.audit.transplant import paired, transplant
from xaitools.probes import Context

DISC = CLASSES[1]


def tried(model, n: int = 24, **options):
    """The decisions are those of the model that reads the tag; the other one makes the same, and what is moved is the same."""
    made = measure_decisions(Context(Marked(n), red()), range(n), Memory(), method=CROSS)
    context = Context(Marked(n), model)
    members = made.of(1)
    cluster = {
        "members": [each.item for each in members], "targets": [each.target for each in members],
        "gathers": {"view": "place", "xyxy": [each / SIDE for each in CORNER]},
    }  # fmt: skip
    return transplant(context, made, DISC, cluster, **options)


def test_a_tag_that_a_model_reads_flips_decisions_both_ways():
    found, cases = tried(red(), keep=2)
    assert found["flips"] is True
    assert found["appears"]["value"] == found["lost"]["value"] == found["removed"]["value"] == 1.0
    assert found["appears"]["control"]["count"] == found["removed"]["control"]["count"] == 0
    assert found["rise"] == {"value": 1.0, "control": 0.0} and found["appears"]["n"] == 12
    assert [case.kind for case in cases] == ["pasted"] * 2 + ["removed"] * 2
    for case in cases[:2]:  # the pixels are the donor's, and nothing else has changed
        data = Marked(24)
        host, donor = (data[data.ids.index(name)] for name in (case.item, case.donor))
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[26:, 26:] = True
        assert case.xyxy == CORNER and torch.equal(case.images[1][:, inside], donor.image[:, inside])
        assert torch.equal(case.images[1][:, ~inside], host.image[:, ~inside])


def test_what_a_model_does_not_read_flips_nothing():
    found, _ = tried(reader("object"))
    assert found["flips"] is False and found["appears"]["count"] == found["removed"]["count"] == 0 and found["appears"]["p"] == 1.0


def test_the_same_seed_gives_the_same_and_no_image_gives_none():
    assert tried(red(), most=5)[0] == tried(red(), most=5)[0]
    assert tried(red(), most=0)[0]["flips"] is None


def test_pairs_are_counted_by_hand():
    found = paired([(True, False)] * 4 + [(False, True)] + [(True, True)] * 3)
    assert (found["n"], found["count"], found["control"]["count"], found["difference"]) == (8, 7, 4, 3 / 8)
    assert found["p"] == pytest.approx((5 + 1) / 32)  # four or five of five the right way
    low, high = paired([(False, False)] * 10)["ci"]
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert paired([])["value"] is None


def test_a_place_is_of_the_image_or_goes_with_the_object():
    box = np.array([0.25, 0.5, 0.5, 0.75])
    assert shared_box("place", np.array([0.5, 0, 1, 0.25]), box, (100, 200)) == (100, 0, 200, 25)
    assert shared_box("object", np.array([1 / 3, 1 / 3, 2 / 3, 2 / 3]), box, (100, 200)) == (50, 50, 100, 75)
    assert shared_box("object", np.array([0, 0, 1 / 3, 1 / 3]), box, (100, 200)) == (0, 25, 50, 50)
    assert shared_box("object", np.array([0, 0, 0.3, 0.3]), np.array([0.0, 0, 0.2, 0.2]), (100, 100)) is None
