"""The page Probe without a browser: asked, come back to, and looked at closer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import cached
import changing
import jobs
import pytest
import results
import sources
from components.charts import drop_rows, drops
from streamlit.testing.v1 import AppTest

import xaitools as xt
from tests.apps.pages import checked, field, opened, pictures, words
from xaitools import zoo
from xaitools.audit.run import probe_models
from xaitools.locations import RUNS, part
from xaitools.report.html import write_report

SEGMENTER, DETECTOR = "tiny-segmenter", "tiny-detector"
HONEST = "unet-scenes"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a run that another program put there; random models have no drops."""
    root = tmp_path_factory.mktemp("runs")
    params = {"pgd": {"steps": 2, "subset": 2, "bootstraps": 20}, "fog": {"bootstraps": 50}}
    params |= {name: {"bootstraps": 20} for name in ("identity", "reencode", "resize", "random_direction")}
    model, data = xt.load_model(HONEST), xt.load_dataset("scenes:test?n=10")
    write_report(probe_models([model], data, ["fog", "pgd"], out=root / "mine", relevance=0, params=params), root / "mine")
    return root


@pytest.fixture
def finished(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo.shipped, "part", part)
    monkeypatch.setenv(RUNS, str(made))
    return made


def open_at(screen: str, **address: Any) -> AppTest:
    app = AppTest.from_file(str(part("apps") / "dashboard.py"), default_timeout=200)
    app.run()
    app.query_params.clear()
    app.query_params.update(address)
    app.switch_page(f"screens/{screen}.py")
    return checked(app.run())


def open_probe(**address: Any) -> AppTest:
    return open_at("probe", **address)


def charts(app: AppTest) -> list[Any]:
    return [json.loads(each.proto.spec) for each in app.get("vega_lite_chart")]


def press(app: AppTest, label: str) -> AppTest:
    return checked(next(each for each in app.button if each.label == label).click().run())


def test_a_question_becomes_a_job_with_its_command_and_can_be_stopped(runs: Path) -> None:
    app = open_probe(models=[SEGMENTER, DETECTOR], on="scenes:val?n=9", probes=["texture"], n="5")
    assert words(app).startswith("#### Probe")  # nothing stands above it
    assert "xaitools probe --model tiny-segmenter --model tiny-detector --probes texture --severities 3 --limit 5" in words(app)
    press(app, "Start the probe")
    (job,) = jobs.jobs()
    assert (job.models, job.dataset, job.state) == ((SEGMENTER, DETECTOR), "scenes:val?n=9", "running")
    assert job.options == ("--probes", "texture", "--severities", "3", "--limit", "5", "--relevance", "16")
    assert field(app, "show").value == "Runs" and len(app.info) == 1  # no run has ended
    (job.folder / "progress.json").write_text('{"done": 3, "total": 12, "rate": 0.5}')
    assert "3 of 12 steps, 0.5 a second, about 18 s to go" in [each.proto.text for each in checked(app.run()).get("progress")]
    press(app, "Cancel")
    assert jobs.job(job.id).state == "cancelled" and "what was done stays" in words(app)
    press(app, "Go on")
    assert jobs.job(job.id).state == "running"
    assert job.id in words(open_probe(show="Runs"))  # another visit sees the same


def test_a_failed_job_says_why_without_being_read_as_markup(runs: Path) -> None:
    press(open_probe(models=[SEGMENTER]), "Start the probe")
    jobs._note(jobs.jobs()[0].folder, jobs.FAILED, line="![x](http://y) <b>")
    assert [each.value for each in open_probe(show="Runs").warning] == [r"failed\: \!\[x\]\(http\:\/\/y\) \<b\>"]


def test_a_run_shows_its_drops_with_intervals_and_n(finished: Path) -> None:
    app = open_probe(show="Runs", probe="fog")
    assert field(app, "probe_run").value == "mine" and not app.warning
    (chart,) = charts(app)
    report = json.loads((finished / "mine" / "report.json").read_text())
    rows = app.dataframe[0].value
    row = rows[(rows.model == HONEST) & (rows["probe"] == "fog")].iloc[0]
    primary = report["probes"]["fog"]["primary"]
    assert row["drop"] == pytest.approx(100 * primary["drop"], abs=0.01) and row["n"] == 10
    assert row["low"] == pytest.approx(100 * primary["ci"][0], abs=0.01)
    assert "drop of mIoU in points, 95 % interval" in json.dumps(chart)
    assert len(app.get("image")) == 1  # the report's figure of fog
    field(app, "probe").set_value("pgd").run()
    assert "on this image alone" in words(checked(app)) and "Projected gradient" in words(app)


def test_models_stand_side_by_side_and_what_is_undefined_is_said() -> None:
    def report(drop: float | None) -> dict[str, Any]:
        primary = {"value": 0.5, "drop": drop, "ci": None if drop is None else [drop - 0.1, drop + 0.1], "p": 0.5, "says": "undecided"}
        return {"probes": {"fog": {"family": "domain", "n": 9, "primary": primary}, "bias": {"measure": "shape_bias"}}}

    rows = drop_rows({"one": report(0.3), "two": report(None)})
    assert [(row["model"], row["drop"], row["low"], row["high"]) for row in rows] == [("one", 30.0, 20.0, 40.0), ("two", None, None, None)]
    bars, _, none = drops(rows, "mIoU")["layer"]
    assert bars["encoding"]["color"]["scale"]["domain"] == ["one", "two"] and none["mark"]["text"] == "undefined"
    assert bars["encoding"]["yOffset"]["sort"] == ["one", "two"]


def test_a_case_is_opened_live_and_in_inspect(finished: Path) -> None:
    app = open_probe(show="Runs", probe="pgd")
    case = json.loads((finished / "mine" / "report.json").read_text())["probes"]["pgd"]["examples"][0]
    number = int(case["id"].rpartition("-")[2])
    link = next(each.proto for each in app.get("page_link") if f"model={HONEST}&" in each.proto.query_string)
    assert f"item={number}" in link.query_string
    press(app, "Change it live")
    assert (field(app, "image").value, field(app, "change").value, field(app, "of").value) == (number, "pgd", HONEST)
    assert len(app.get("image")) == 4 and "The change, " in words(app)
    assert "2.0 / 255" in words(app)


def test_severity_changes_the_image_after_and_nothing_else(runs: Path) -> None:
    app = open_probe(show="One image", of=SEGMENTER, on="scenes:test?n=4", image="2", change="fog", degree="1")
    urls = [each.value[0] for each in app.get("image")]
    field(app, "degree").set_value(4).run()
    later = [each.value[0] for each in checked(app).get("image")]
    assert urls[:2] == later[:2] and urls[2] != later[2]
    assert "fog, severity 4" in words(app)


def test_the_changed_image_opens_in_inspect(runs: Path) -> None:
    """Also in a session that has sent a picture of its own before: the link says which one is meant."""
    data = "scenes:test?n=4"
    app = open_probe(show="One image", of=SEGMENTER, on=data, image="2", change="fog", degree="3")
    _, link = [parse_qs(each.proto.query_string) for each in app.get("page_link")]
    shot = sources.kept(link["picture"][0])
    expected = changing.changed(cached.load(SEGMENTER), data, 2, "fog", 3).image
    assert float((shot.sample.image - expected).abs().max()) <= 0.5 / 255 + 1e-6
    assert float((shot.sample.image - xt.load_dataset(data)[2].image).abs().max()) > 0.1
    assert link["model"] == [SEGMENTER] and "fog 3" in shot.note
    other = sources.keep_image("another", expected.flip(-1))
    inspect = opened("inspect", model=SEGMENTER, data="upload", method=["saliency"], picture=other)
    before = pictures(inspect)["picture"]["image"]
    inspect.query_params["picture"] = link["picture"][0]
    assert pictures(checked(inspect.run()))["picture"]["image"] != before
    field(app, "degree").set_value(0).run()
    assert len(checked(app).get("page_link")) == 1


def test_a_change_is_that_of_the_probe() -> None:
    import torch

    from xaitools.probes import Context, change

    loaded, data = cached.load(SEGMENTER), xt.load_dataset("scenes:test?n=4")
    sample = change("fog", [data[1]], 2, Context(data))[0]
    found = changing.changed(loaded, "scenes:test?n=4", 1, "fog", 2)
    assert found.largest == pytest.approx(255 * float((sample.image - data[1].image).abs().max()))
    assert found.gain == pytest.approx(127.5 / found.largest)
    _, difference, gain = changing._magnified(data[1], sample)
    assert torch.allclose(difference, 0.5 + gain * (sample.image - data[1].image)) and float(difference.min()) >= -1e-6


@pytest.mark.parametrize("address", [{"on": "camvid:../..#test"}, {"on": "nonsense"}], ids=str)
def test_a_wrong_address_gets_its_line(runs: Path, address: dict[str, str]) -> None:
    for show in ("Ask", "One image"):
        assert len(open_probe(show=show, **address).warning) == 1


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"model": "m"}', '{"model":"m","dataset":"d","metric":"mIoU","n":1,"clean":{},"probes":{},"versions":{},"warnings":[]}'],
)
def test_a_damaged_report_is_left_out_or_told(runs: Path, content: str) -> None:
    (runs / "odd").mkdir(parents=True)
    (runs / "odd" / "report.json").write_text(content)
    app = open_probe(show="Runs")
    assert len(app.info) + len(app.warning) == 1


def test_links_out_of_the_runs_folder_are_not_followed(finished: Path, runs: Path) -> None:
    runs.mkdir()
    (runs / "linked").symlink_to(finished / "mine")
    (runs / "real").mkdir()
    (runs / "real" / "report.json").symlink_to(finished / "mine" / "report.json")
    assert len(open_probe(show="Runs").info) == 1


def test_pages_share_the_dataset_and_keep_their_work(runs: Path) -> None:
    app = open_probe(show="One image", of=SEGMENTER, on="scenes:val?n=7", image="5")
    app.switch_page("screens/audit.py")
    app.run()
    assert not checked(app).warning and field(app, "audit").value == "Ask"
    assert (field(app, "of").value, field(app, "on").value) == (SEGMENTER, "scenes:val?n=7")


def test_a_runs_folder_that_cannot_be_written_is_told(runs: Path) -> None:
    runs.write_text("a file")
    app = press(open_probe(models=[SEGMENTER]), "Start the probe")
    assert "another --runs" in app.toast[0].value and field(app, "show").value == "Ask"


@pytest.mark.parametrize("content", [b"", b"<script>", b"\x89PNG\r\n\x1a\n" + bytes(60)])
def test_a_picture_that_is_none_is_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "fog.png").write_bytes(content)
    (tmp_path / "secret.png").write_bytes(changing.still(xt.load_dataset("scenes:test?n=1")[0].image, None).png)
    assert results.figure(tmp_path, "fog") == b"" == results.figure(tmp_path, "../secret")
    (tmp_path / "secret.png").rename(tmp_path / "figures" / "fog.png")
    assert results.figure(tmp_path, "fog").startswith(b"\x89PNG")
