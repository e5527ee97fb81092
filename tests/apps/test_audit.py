"""The page Audit without a browser: what was found, what it rests on, and its place tried by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cached
import jobs
import moving
import numpy as np
import pytest
import torch
from changing import still
from streamlit.testing.v1 import AppTest

import xaitools as xt
from tests.apps.small_audit import DATA, MODEL, leave
from tests.apps.test_inspect import checked, field, words
from tests.apps.test_probe import charts, open_at, press
from xaitools import zoo
from xaitools.audit.decisions import Limits, chosen_of, measure_decisions
from xaitools.audit.records import Memory
from xaitools.files import write_json
from xaitools.locations import RUNS, part
from xaitools.probes import Context
from xaitools.report.spray import SHARED


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audits")
    leave(root / "mine")
    return root


@pytest.fixture
def finished(made: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(zoo.shipped, "part", part)
    monkeypatch.setenv(RUNS, str(made))
    return json.loads((made / "mine" / "report.json").read_text())


def open_audit(**address: Any) -> AppTest:
    return open_at("audit", **address)


def tables(app: AppTest) -> str:
    return "\n".join(each.proto.body for each in app.get("html"))


def test_a_question_becomes_a_job(runs: Path) -> None:
    app = open_audit(of="tiny-detector", on="scenes:test?n=12", n="6", explained="4", allow=["texture"])
    press(app, "Start the audit")
    (job,) = jobs.jobs("audit")
    assert (job.models, job.dataset) == (("tiny-detector",), "scenes:test?n=12")
    assert job.options == ("--limit", "6", "--explained", "4", "--no-robustness", "--allow", "texture")
    assert jobs.jobs("probe") == [] and field(app, "audit").value == "Runs"


def test_findings_stand_with_strength_evidence_and_error_rates(finished: dict[str, Any]) -> None:
    app = open_audit(audit="Runs")
    assert not app.warning and "few images" in words(app)
    said = words(app)
    assert said.index("artifact") < said.index("about domain")  # what the model relies on comes first
    assert "51.5 points** [35.8, 66.8]" in said and "Would refute it: a control that costs as much." in said
    assert "Undecided: what is lost" in said and "changes light too." in said
    assert "the audit was wrong in" in said and "n = 24" in field(app, "audit_run").options[0]
    assert "[0.200, 0.300]" in tables(app) and "what is lost &lt;b&gt;" in tables(app)


def test_a_cluster_shows_its_members_and_mean_maps(finished: dict[str, Any]) -> None:
    app = open_audit(audit="Runs", part="Clusters", **{"class": "arrow"})
    facts = finished["spray"]["arrow"]
    (chart,) = charts(app)
    names = chart["encoding"]["color"]["scale"]["domain"]
    assert names[0] == f"1 (suspicious), n {facts['clusters'][0]['size']}" and len(names) == len(facts["clusters"])
    images = len(set(facts["clusters"][0]["members"]))
    assert len(app.get("image")) == 2 + min(12, images)
    links = [each.proto.query_string for each in app.get("page_link")]
    assert len(links) == min(12, images) and all("target=region%3Aarrow%3Avs%3A" in each for each in links)
    other = next(name for name in finished["spray"] if name != "arrow" and finished["spray"][name]["clusters"])
    field(app, "class").set_value(other).run()
    assert f"decisions for {other}" in words(checked(app))


def test_the_place_is_pasted_as_by_hand(finished: dict[str, Any]) -> None:
    app = open_audit(audit="Runs", part="Transplant")
    assert f"{finished['transplants']['arrow'][0]['appears']['value']:.3f}" in tables(app)
    donor, host = field(app, "donor").value, field(app, "host").value
    cluster = finished["spray"]["arrow"]["clusters"][0]
    assert donor in cluster["members"] and host not in finished["spray"]["arrow"]["clusters"][0]["members"]
    assert cluster["gathers"]["view"] == "place" and len(app.get("image")) == 3

    data, loaded = xt.load_dataset(DATA), cached.load(MODEL)
    size = data[0].image.shape[-1]
    left, top, right, bottom = (round(size * share) for share in cluster["gathers"]["xyxy"])
    one, two = (data[data.ids.index(name)].image for name in (donor, host))
    changed = two.clone()
    changed[:, top:bottom, left:right] = one[:, top:bottom, left:right]
    prediction = loaded.model.predict(changed[None])[0]
    appears = "arrow" in [prediction.classes[int(prediction.labels[number])] for number in chosen_of(prediction, Limits())]
    assert (f"**arrow appears** in {host}" in words(app)) is appears
    box = (left, top, right, bottom)
    found = moving.moved(loaded, DATA, "arrow", data.ids.index(donor), data.ids.index(host), box, box)
    assert found.after == still(changed, prediction, boxes={SHARED: box}) and found.appears is appears

    before = [each.value for each in app.get("image")]
    field(app, "host").set_value(field(app, "host").options[1]).run()
    after = [each.value for each in checked(app).get("image")]
    assert before[0] == after[0] and before[1:] != after[1:]
    for number in app.number_input:
        number.set_value(50.0)
    assert "The place is empty" in words(checked(app.run())) and not app.get("image")


def test_what_each_class_loses_without_others(finished: dict[str, Any]) -> None:
    assert "0.100 to 0.900" in tables(open_audit(audit="Runs", part="Without one another"))


def test_a_choice_of_decisions_shows_those_alone(finished: dict[str, Any]) -> None:
    loaded, cluster = cached.load(MODEL), finished["spray"]["arrow"]["clusters"][0]
    folder = Path(moving.sources.__file__).parent  # no records lie there
    with pytest.raises(xt.XaiError):
        moving.decisions(loaded, DATA, folder, 0.0, 0, None, "")
    context = Context(xt.load_dataset(DATA), loaded.model)
    some = measure_decisions(context, range(4), Memory(), method="gradient-x-input")
    keys = [each.key for each in some.made][:2]
    assert {member.item for member, _ in moving.members(loaded, DATA, some, keys, cluster, 6)} == {item for item, _ in keys}


def test_a_mean_map_is_red_where_relevance_is() -> None:
    values = torch.zeros(16, 16)
    values[3, 5] = 1
    shown = moving.mean_map(values.tolist())
    assert shown.shape == (256, 256, 3) and tuple(shown[2 * 16, 2 * 16]) == (255, 255, 255)
    cell = shown[3 * 16 + 8, 5 * 16 + 8].astype(int)
    assert cell[0] > cell[2] and np.array_equal(shown[0, 9], [150] * 3)


def test_a_model_that_is_not_here_and_a_damaged_report_get_their_line(finished: dict[str, Any], runs: Path) -> None:
    for name, changes in {"a": {"model": "python:x.py:f"}, "b": {"spray": {"arrow": {"clusters": [1]}}}}.items():
        write_json(runs / name / "report.json", finished | changes)
        app = open_audit(audit="Runs", audit_run=name, part="Clusters")
        assert len(app.warning) == 1 and "\n" not in app.warning[0].value
