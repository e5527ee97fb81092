"""Which class gains from an artefact, on a model that takes every bright corner for discs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.audit.test_shift import Tagged, corner
from xaitools.audit import probe
from xaitools.audit.records import from_table
from xaitools.metrics import image_weights
from xaitools.metrics.statistics import pooled_mean
from xaitools.report.gains import gains_words


def test_the_class_that_gains_is_named_with_the_interval_of_the_mean():
    result = probe(corner(), Tagged(16), ["artifact.paste"], params={"artifact.paste": {"position": "lower_right"}}, relevance=0)
    gains = result.report["probes"]["artifact.paste"]["gains"]
    rows = [row for row in from_table(result.records) if row.condition == "artifact.paste"]
    for row in gains:
        each = np.array([other.statistics[f"measured.gain.{row['class']}"][0] for other in rows])
        weights = image_weights([other.item for other in rows], seed=0, replicates=2000)
        assert row["value"] == pytest.approx(each.mean())
        assert row["ci"] == pooled_mean(each[:, None].tolist(), weights)["ci"]
    assert [row["value"] for row in gains] == sorted((row["value"] for row in gains), reverse=True)
    assert sum(row["value"] for row in gains) == pytest.approx(0, abs=1e-6)


def test_words_name_a_class_only_where_it_surely_gains():
    sure, unsure = {"class": "<disc>", "value": 0.125, "ci": [0.1, 0.15]}, {"class": "square", "value": 0.02, "ci": [-0.01, 0.05]}
    assert "to <b>&lt;disc&gt;</b>: +12.5 points of the pixels [10.0, 15.0]" in gains_words([sure, unsure], "segmentation")
    assert "<b>&lt;disc&gt;</b>: +0.12 boxes an image [0.100, 0.150]" in gains_words([sure], "detection")
    assert "to no class" in gains_words([unsure], "classification") and gains_words([], "segmentation") == ""
