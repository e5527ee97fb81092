"""Decisions read again from the records of an audit: the same numbers, and nobody is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import xaitools as xt
from xaitools.audit.decisions import Looker, measure_decisions
from xaitools.audit.records import Folder
from xaitools.audit.reopen import stored_decisions
from xaitools.errors import DataError
from xaitools.probes import Context


def test_the_stored_decisions_are_those_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(xt.load_dataset("scenes:test?n=5"), xt.load_model("unet-scenes"))
    measured = measure_decisions(context, [0, 2, 3], Folder(tmp_path, "plan"), method="gradient-x-input")
    (tmp_path / "run.json").write_text(json.dumps({"identity": "plan"}))
    for name in ("row", "settle", "_maps"):
        monkeypatch.setattr(Looker, name, None)
    report = {"seed": 0, "decisions": {"method": measured.method, "note": measured.note}}
    found = stored_decisions(tmp_path, context, report)
    assert [each.key for each in found.made] == [each.key for each in measured.made] and len(found.made) >= 3
    assert {each.item for each in found.made} <= {"test-00000", "test-00002", "test-00003"}
    for one, two in zip(found.made, measured.made, strict=True):
        assert (one.label, one.confidence, one.right, one.score) == (two.label, two.confidence, two.right, two.score)
        for name in ("box", "place", "object_view", "shares", "areas"):
            assert np.array_equal(getattr(one, name), getattr(two, name))
    fewer = Context(xt.load_dataset("scenes:test?n=3"), context.model)
    assert {each.item for each in stored_decisions(tmp_path, fewer, report).made} <= {"test-00000", "test-00002"}


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"identity": "another"}'])
def test_records_of_another_plan_are_not_read(tmp_path: Path, content: str | None) -> None:
    context = Context(xt.load_dataset("scenes:test?n=2"), xt.load_model("unet-scenes"))
    measure_decisions(context, [0], Folder(tmp_path, "plan"), method="gradient-x-input")
    report = {"seed": 0, "decisions": {"method": None, "note": ""}}
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    if content == '{"identity": "another"}':
        assert stored_decisions(tmp_path, context, report).made == ()
    else:
        with pytest.raises(DataError):
            stored_decisions(tmp_path, context, report)
