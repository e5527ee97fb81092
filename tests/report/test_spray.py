"""Pictures and words of what SpRAy found, on clusters that were planted."""

import io
import re

import numpy as np
import pytest
import torch

from tests.audit.test_spray import QUICK, decisions, population
from xaitools.audit.reliance import reliance
from xaitools.audit.spray import Member, spray
from xaitools.audit.transplant import Case, paired
from xaitools.report.page import figure_bytes
from xaitools.report.spray import reliance_section, spray_figure, spray_section, transplant_figure
from xaitools.types import Prediction

SIDE = 24


@pytest.fixture(scope="module")
def found():
    return decisions(population(50, 15), population(30, 0, label=1), population(3, 0, label=2))


@pytest.fixture(scope="module")
def clusters(found):
    return spray(found, criteria=QUICK)


def image(seed: int) -> torch.Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_the_figure_says_what_was_found_in_letters_and_shows_the_shared_place(clusters):
    members = [[Member("0-001", image(1), (2.0, 2.0, 9.0, 9.0), (10, 20, 24, 24))]] * 2
    drawn = figure_bytes(spray_figure("a", clusters["a"], members), "svg")
    text = drawn.decode()
    assert "a: 50 decisions" in text and ">35 decisions, not suspicious" in text and ">15 decisions, suspicious" in text
    assert text.count("#d55e00") == 2  # of the suspicious cluster alone: in its mean map and in its member
    assert drawn == figure_bytes(spray_figure("a", clusters["a"], members), "svg")


def test_a_transplant_is_told_beside_its_control():
    def said(name: str) -> Prediction:
        labels = {"a": [0, 1], "b": [1, 0]}[name]
        return Prediction("classification", ("a", "b"), (SIDE, SIDE), torch.tensor(labels), torch.tensor([0.9, 0.1]))

    images, box = (image(1), image(2), image(3)), (4, 4, 12, 10)
    pasted = Case("pasted", "host", "donor", "other", box, box, True, False, images, (said("b"), said("a"), said("b")))
    removed = Case("removed", "own", "", "", box, (12, 12, 20, 18), False, True, images, (said("a"), said("a"), said("b")))
    buffer = io.StringIO()
    transplant_figure("a", [pasted, removed]).savefig(buffer, format="svg")
    text = " ".join(re.findall(r">([^<>]+)</text>", buffer.getvalue()))  # lines break where they must
    for words in ("host with the place of", "a appears", "a is kept", "it is lost too", "a 0.90", "before", "control"):
        assert words in text


def test_the_section_has_a_row_for_each_cluster_and_says_why_there_is_none(clusters):
    moved = {"a": [{"appears": paired([(True, False)] * 8), "lost": paired([(True, False)] * 8), "removed": paired([]), "flips": True,
                    "criterion": "It flips <if>."}]}  # fmt: skip
    page = spray_section(clusters, QUICK.words, moved, "Relevance by lrp.", {"a": [figure_bytes(spray_figure("a", clusters["a"]), "png")]})
    assert page.count("<b>suspicious</b>") == 1 and "too few to cluster" in page and "Relevance by lrp." in page
    assert page.count("<tr>") == 1 + 2 + 1 + 1 + 1 + 3 and "<b>flips decisions</b>" in page and "It flips &lt;if&gt;." in page
    assert page.count("<img") == 1 and "no more there than elsewhere" in page
    assert "black box" in spray_section({}, "", note="the model is a black box") and "Not measured" in spray_section({}, "")


def test_reliance_stands_over_chance(found):
    page = reliance_section(reliance(found))
    assert page.count("<tr>") == 4 and "<small>none</small>" in page and "<b>" not in page  # here every share is that of the area
    assert reliance_section({}) == ""
    assert np.isclose(reliance(found)["a"]["parts"]["object"]["beyond"]["value"], 0)
