"""An audit of models whose cue is known by hand: what reads a corner, what reads the border, and what reads the object."""

import json
from dataclasses import replace

import pytest
import torch

import xaitools as xt
from tests.audit.test_shift import Tagged, corner
from tests.probes.toys import CLASSES, Boxes, Shapes, reader
from xaitools.adapters import SegmentationModel
from xaitools.audit.examine import audit
from xaitools.audit.verdict import AGREED, ERRORS, QUESTIONS, TRACES, Case, Measured, cases, finding
from xaitools.data.writing import write_dataset
from xaitools.errors import DataError, PlanError, XaiError
from xaitools.files import read_json
from xaitools.probes import CUES
from xaitools.report.findings import findings_section, undecided_why

QUICK = {"robustness": False, "relevance": 20, "relevance_method": "gradient-x-input"}


def verdicts(report) -> dict[str, str]:
    return {row["shortcut"]: row["verdict"] for row in report["findings"]}


@pytest.fixture(scope="module")
def tagged():
    return audit(corner(), Tagged(32), **QUICK)


def test_a_model_that_reads_a_corner_relies_on_an_artefact_and_the_background_is_not_blamed(tagged):
    found = {row["shortcut"]: row for row in tagged.report["findings"]}
    assert tuple(found) == CUES
    assert found["artifact"]["verdict"] == "relies" and found["artifact"]["strength"] == 1.0
    assert found["background"]["verdict"] == "undecided" and "see artifact" in str(found["background"]["evidence"])
    assert found["cooccurrence"]["verdict"] == found["texture"]["verdict"] == "no evidence"
    assert all(row["would_refute"] and row["evidence"][0]["kind"] == "intervention" for row in found.values())
    assert {row["removed"] for row in tagged.report["counterfactual"]["rows"]} == {"background"}
    assert tagged.report["spots"]["few"] == {}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_scenes_written_as_voc_files_get_the_same_findings(tmp_path):
    scenes = xt.load_dataset("scenes:test?n=60&shortcut=tag&rho=1&prevalence=1&others=0&size=64")
    write_dataset({"test": scenes}, "voc", tmp_path / "voc")
    files = xt.load_dataset(f"voc:{tmp_path / 'voc'}#test")
    model = xt.load_model("unet-scenes-tag")
    drawn, read = (audit(model, each, robustness=False).report["findings"] for each in (scenes, files))
    for one, other in zip(drawn, read, strict=True):
        kept = [{**row, "evidence": row["evidence"][:2]} for row in (one, other)]  # what a declared tag costs comes after them
        assert kept[0] == kept[1]
    assert [row["shortcut"] for row in read] == list(CUES)


@pytest.mark.long
def test_a_model_that_reads_the_border_relies_on_the_background_and_an_honest_one_on_nothing():
    found = verdicts(audit(reader("border"), Shapes(32), **QUICK).report)
    assert found["background"] == "relies" and found["artifact"] == "no evidence"
    found = verdicts(audit(reader("object"), Shapes(32), **QUICK).report)
    assert found["background"] == found["artifact"] == found["cooccurrence"] == "no evidence"
    assert found["texture"] == "relies"  # it names objects by their colour


def test_neither_kind_of_evidence_is_enough_alone():
    sure, none = Measured(0.6, [0.5, 0.7], 50, "lost"), Measured(0.0, [-0.01, 0.01], 50, "lost")
    seen, unseen = Measured(0.5, [0.4, 0.6], 50, "there"), Measured(0.01, [0.0, 0.02], 50, "there")
    open_ = Measured(0.12, [0.02, 0.22], 50, "lost")
    pairs = (("relies", sure, seen), ("no evidence", sure, unseen), ("no evidence", none, seen), ("undecided", open_, seen))
    for verdict, cause, trace in pairs:
        assert finding(Case("background", cause, trace), False)["verdict"] == verdict
    assert finding(Case("background", sure, replace(seen, ci=None)), False)["verdict"] == "undecided"
    assert finding(Case("background", sure, seen, doubt="because"), False)["verdict"] == "undecided"
    told = finding(Case("background", open_, seen), True)
    assert told["declared"] and told["would_refute"].startswith("about 201 images in place of 50")  # half width 0.1, 0.05 from CAUSE


def test_a_broken_image_is_listed_and_stops_nothing():
    class Broken(Tagged):
        def __getitem__(self, index):
            if index == 3:
                raise DataError(f"{self.ids[index]}: the picture is cut short")
            return super().__getitem__(index)

    report = audit(corner(), Broken(32), **QUICK).report
    assert {each["id"] for each in report["skipped"] if "cut short" in each["reason"]} == {"shape-003"}
    assert verdicts(report)["artifact"] == "relies" and report["spots"]["n"] + report["spots"]["nowhere"] == 31


def idle(share):
    """The row of a class whose spots do nothing, of which such a share lies at one place."""
    none = {"value": 0.0, "ci": [0.0, 0.0], "n": 20, "images": 20}
    shown = {"ratio": {"value": 2.0, "ci": [1.5, 2.5]}, "removed": none, "moved": none}
    return {"n": 20, "judged": 20, "place": {"share": share, "xyxy": [0, 0, 1, 1], **shown}, "elsewhere": shown, **shown}


def test_a_costly_probe_that_no_spot_explains_is_no_ground_for_no_evidence():
    spot = idle(0.1)
    for low, verdict in ((0.2, "undecided"), (0.0, "no evidence")):
        row = {"family": "cooccurrence", "primary": {"drop": 0.3, "ci": [low, 0.4]}, "n": 20}
        report = {
            "probes": {"cooccurrence.remove": row}, "warnings": [], "transplants": {},
            "spots": {"classes": {"disc": spot}, "nowhere": 0, "note": ""},
        }  # fmt: skip
        found = {case.family: finding(case, False)["verdict"] for case in cases(report)}
        assert found["cooccurrence"] == verdict and found["background"] == "undecided"


def asked(**causes):
    """A report in which each probe of ``QUESTIONS`` named by its family has this interval around its loss, the others none to speak of."""
    shift = {
        "n": 20,
        **{key: {"object": 0.5} for key in ("before",)},
        "before_ci": {"object": [0.4, 0.6]},
        "chance": {"before": {"object": 0.2}},
    }
    probes = {}
    for family, name in QUESTIONS.items():
        low, high = causes.get(family, (-0.01, 0.01))
        row = {"family": family, "primary": {"drop": (low + high) / 2, "ci": [low, high]}, "n": 20, "relevance": shift}
        probes[name] = row
    spot = idle(0.9)
    return {"probes": probes, "warnings": [], "transplants": {}, "spots": {"classes": {"disc": spot}, "nowhere": 0, "note": ""}}


def judged(report):
    return {case.family: finding(case, False)["verdict"] for case in cases(report)}


@pytest.mark.parametrize(("agreed", "verdict"), [((0.06, 0.15), "relies"), ((-0.02, 0.08), "no evidence"), ((0.02, 0.2), "undecided")])
def test_the_colours_of_another_background_are_no_light(agreed, verdict):
    report = asked(domain=(0.2, 0.3))
    row = report["probes"][QUESTIONS["domain"]]
    report["probes"][AGREED] = row | {"primary": {"drop": sum(agreed) / 2, "ci": list(agreed)}}
    assert judged(report) == dict.fromkeys(CUES, "no evidence") | {"domain": verdict}


def test_of_cues_that_come_along_with_each_other_the_costlier_is_blamed():
    none = dict.fromkeys(CUES, "no evidence")
    assert judged(asked()) == none
    assert judged(asked(background=(0.3, 0.5))) == none | {"background": "relies"}
    assert judged(asked(background=(0.3, 0.5), domain=(0.2, 0.3))) == none | {"background": "relies", "domain": "undecided"}
    assert judged(asked(background=(0.2, 0.3), domain=(0.3, 0.5))) == none | {"background": "undecided", "domain": "relies"}
    shaded = asked(background=(0.3, 0.5), domain=(0.2, 0.3))  # but turned objects cost as well: the light is on them too
    for name in ("object_rotate", "object_rotate_90"):
        shaded["probes"][name] = shaded["probes"]["pose.gap"] | {"primary": {"drop": 0.3, "ci": [0.2, 0.4]}}
    assert judged(shaded) == none | {"background": "undecided", "domain": "relies"}
    assert judged(asked(pose=(0.2, 0.3), domain=(0.3, 0.5))) == none | {"pose": "undecided", "domain": "relies"}
    assert judged(asked(pose=(0.4, 0.6), domain=(0.3, 0.5))) == none | {"pose": "relies", "domain": "relies"}


def test_where_what_stands_in_a_background_could_not_be_judged_the_background_is_undecided():
    report = asked(background=(0.3, 0.5))
    report["spots"] = {"classes": {}, "nowhere": 0, "note": "no map of this model could be made"}
    found = judged(report)
    assert found["artifact"] == found["cooccurrence"] == found["background"] == "undecided" and found["texture"] == "no evidence"


def test_of_pose_the_least_costly_turn_counts():
    report = asked(pose=(0.3, 0.5))
    turns = {"object_rotate": (0.3, 0.5), "object_rotate_90": (0.0, 0.05), "object_rotate_150": (0.4, 0.5)}
    row = report["probes"]["pose.gap"]
    for name, (low, high) in turns.items():
        report["probes"][name] = row | {"primary": {"drop": (low + high) / 2, "ci": [low, high]}}
    assert judged(report)["pose"] == "no evidence"
    report["probes"]["object_rotate_90"] = row | {"primary": {"drop": 0.4, "ci": [0.2, 0.5]}}
    assert judged(report)["pose"] == "relies"
    row["primary"] = {"drop": None, "ci": None}  # of one class alone, what costs may be angles that were never shown
    assert judged(report)["pose"] == "undecided"
    report["probes"]["object_rotate_90"] = row | {"primary": {"drop": 0.02, "ci": [0.0, 0.05]}}
    assert judged(report)["pose"] == "no evidence"


def test_an_undecided_cue_says_what_is_missing():
    report = asked()
    report["probes"]["gap"]["primary"] = {"drop": None, "ci": None}
    report["probes"].pop("texture.gap")
    report["warnings"] = ["gap is undefined: no image could be used (no donor)", "texture.gap was left out: the data has no masks"]
    report["spots"]["classes"]["disc"] = idle(0.1) | {"moved": None}  # in all images the same class
    found = {case.family: finding(case, False) for case in cases(report)}
    why = {family: undecided_why(row) for family, row in found.items()}
    assert why["background"] == report["warnings"][0] and why["texture"] == report["warnings"][1]
    assert "no image of another class" in why["cooccurrence"] and why["pose"] == ""
    report["spots"]["classes"]["disc"] = idle(0.1) | {"moved": {"value": 0.3, "ci": None, "n": 20, "images": 20}}
    company = next(row for row in map(lambda case: finding(case, False), cases(report)) if row["shortcut"] == "cooccurrence")
    assert (company["verdict"], company["strength"], company["ci"]) == ("undecided", 0.3, None)
    assert "too few images" in undecided_why(company)
    report["probes"]["pose.gap"]["primary"]["ci"] = None
    report["warnings"].append("only 9 clusters, fewer than 10: no interval, but the range over the clusters, each alone")
    pose = next(each for each in map(lambda case: finding(case, False), cases(report)) if each["shortcut"] == "pose")
    assert pose["verdict"] == "undecided" and pose["evidence"][0]["says"].endswith("each alone") and "9 clusters" in undecided_why(pose)
    report["findings"] = list(found.values())
    report["error_rates"] = read_json(ERRORS)
    assert f"<p><small>{report['warnings'][0]}</small></p>" in findings_section(report)


def test_what_cannot_be_assessed_is_undecided_everywhere():
    class Discs(torch.nn.Module):
        """All it sees are discs."""

        def forward(self, x):
            return torch.stack([0 * x[:, 0], 1 + 0 * x[:, 0], 0 * x[:, 0]], 1)

    report = audit(SegmentationModel(Discs(), CLASSES, background=0, name="blind"), Shapes(16), **QUICK).report
    assert report["clean"]["value"] < 0.05 and set(verdicts(report).values()) == {"undecided"}
    assert all("not assessable" in str(row["evidence"]) for row in report["findings"])


def test_a_black_box_gets_its_drops_and_says_what_is_missing():
    report = audit(Boxes(), Shapes(16), robustness=False, relevance=4).report
    assert report["spots"]["method"] is None and "black box" in report["spots"]["note"]
    assert verdicts(report)["background"] in ("undecided", "no evidence") and "relies" not in verdicts(report).values()


def test_an_audit_is_saved_resumed_and_refused(tagged, tmp_path):
    out = tmp_path / "run"
    told: list[tuple[int, int]] = []
    first = audit(corner(), Tagged(32), out=out, progress=lambda *each: told.append(each), **QUICK)
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1] == (told[0][1],) * 2
    assert first.report == tagged.report
    files = {path.name for path in xt.save(first, out)}
    assert {"report.json", "report.html", "model-card.md"} <= files
    assert json.loads((out / "report.json").read_text())["findings"] == tagged.report["findings"]
    page, card = (out / "report.html").read_text(), (out / "model-card.md").read_text()
    assert "The model relies on <b>artifact</b>" in page and "Beside the objects" in page and "| artifact | relies | 100.0 |" in card
    for path in list((out / "records").iterdir())[::2]:
        path.unlink()
    assert audit(corner(), Tagged(32), out=out, resume=True, **QUICK).report == tagged.report
    with pytest.raises(PlanError, match="audit"):
        audit(corner(), Tagged(32), out=out, resume=True, allow=["artifact"], **QUICK)
    with pytest.raises(XaiError, match="cue family in allow"):
        audit(corner(), Tagged(32), allow=["artefact"], **QUICK)
    with pytest.raises(XaiError, match="explained=0"):
        audit(corner(), Tagged(32), explained=0, **QUICK)


def test_every_family_has_a_question_and_a_rule():
    assert tuple(QUESTIONS) == tuple(TRACES) == CUES and set(QUESTIONS.values()) <= set(
        xt.probe.__globals__["make_plan"].__globals__["PROBES"]
    )
    assert callable(xt.audit) and cases is not None


def test_the_command_fails_on_a_finding_that_is_not_allowed(tagged, tmp_path, monkeypatch, capsys):
    from xaitools.audit import examine
    from xaitools.cli import main

    def status(*more: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["audit", "scenes:test?n=2", "--model", "unet-scenes", "--out", str(tmp_path / "run"), "--no-images", *more])
        return stop.value.code

    given = []

    def stand_in(model, data, **options):
        given.append(options)
        findings = [dict(row, declared=row["shortcut"] in options["allow"]) for row in tagged.report["findings"]]
        return replace(tagged, report=dict(tagged.report, findings=findings))

    monkeypatch.setattr(examine, "audit", stand_in)
    assert status("--fail-on-finding") == 3 and status() == 0 and status("--fail-on-finding", "--allow", "artifact,texture") == 0
    assert given[-1]["allow"] == ["artifact", "texture"] and given[0]["robustness"] is True
    assert "artifact       relies       100.0 points" in capsys.readouterr().out
    assert not (tmp_path / "run" / "figures").exists()
    monkeypatch.undo()
    assert status("--allow", "artefact") == 2 and "cue family in allow" in capsys.readouterr().err
