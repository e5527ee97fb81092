"""How a detector came to its boxes, as a figure and as a file."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch

import xaitools as xt
from tests.adapters.test_trace import MODELS, Queries
from tests.nets import detector, picture
from tests.report.test_figures import words
from xaitools.adapters import PlainDetector
from xaitools.attribution.explanation import explain_image
from xaitools.cli import main
from xaitools.errors import PlanError, XaiError
from xaitools.report import trace_document as documents
from xaitools.report.figures import figure
from xaitools.report.page import figure_bytes
from xaitools.report.store import load_explanation, save_explanation, save_explanations
from xaitools.report.trace import trace_figure
from xaitools.types import FATES, Explanation, Sample

METHOD = "detection-trace"


def explained(model, targets=("box:0", "box:1"), size=(48, 64), methods=(METHOD,)) -> Explanation:
    return explain_image(model, Sample("street", picture(*size, seed=1)), targets, methods)


def queries() -> PlainDetector:
    """No starts, one box that shares its place with many others."""
    boxes = [[10.0 + x, 8.0 + y, 40.0 + x, 30.0 + y] for x, y in itertools.product(range(0, 8, 2), range(0, 8, 2))]
    return PlainDetector(Queries(boxes, [[2.0 - 0.1 * x] for x in range(len(boxes))]), ("a class with a long name",), background="none")


CASES = {
    "two stages": lambda: explained(detector()),
    "proposals from outside": lambda: explained(MODELS["fast-rcnn"]()),
    "grid": lambda: explained(MODELS["yolo"]()),
    "levels": lambda: explained(MODELS["ssd"]()),
    "no starts": lambda: explained(queries(), ("box:0",)),
    "missed": lambda: explained(queries(), ("box:1,1,9,9:a class with a long name", "box:12,10,42,32:a class with a long name")),
    "wide": lambda: explained(detector(), ("box:0",), (24, 90)),
    "tall": lambda: explained(detector(), ("box:0",), (120, 30)),
    "scene": lambda: explain_image(xt.load_model("faster-rcnn-scenes"), xt.load_dataset("scenes:test?n=3")[2], ("box:0",), (METHOD,)),
}


@pytest.mark.parametrize(("case", "width"), [*((case, 180) for case in CASES), ("scene", 90), ("grid", 300)])
def test_no_text_covers_another_or_leaves_the_page(case, width):
    drawing = trace_figure(CASES[case](), dpi=100, width_mm=width)
    placed = words(drawing)
    for text, box in placed:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= drawing.bbox.x1 + 1 and box.y1 <= drawing.bbox.y1 + 1, f"{text!r} is cut off"
    for (one, first), (two, second) in itertools.combinations(placed, 2):
        over = min(first.x1, second.x1) - max(first.x0, second.x0), min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(over) < 2, f"{one!r} covers {two!r}"


@pytest.mark.parametrize("form", ["png", *(pytest.param(each, marks=pytest.mark.long) for each in ("pdf", "svg"))])
def test_same_input_same_bytes(form):
    first, second = (figure_bytes(trace_figure(CASES["scene"](), dpi=60), form) for _ in range(2))
    assert first == second
    other = explained(detector())
    assert figure_bytes(trace_figure(other, dpi=60), form) != figure_bytes(trace_figure(replace(other, targets=("box:0",),
        attributions=other.attributions[:1]), dpi=60), form)  # fmt: skip


def written(drawing) -> set[str]:
    svg = ElementTree.fromstring(figure_bytes(drawing, "svg"))
    return {"".join(each.itertext()).strip() for each in svg.iter("{http://www.w3.org/2000/svg}text")}


def test_captions_count_what_is_drawn():
    explanation = CASES["scene"]()
    [attribution] = explanation.attributions
    trace, first = attribution.trace, attribution.trace.first
    counts = dict(zip(FATES, trace.fates.bincount(minlength=6).tolist(), strict=True))
    told = " ".join(sorted(written(trace_figure(explanation, width_mm=600))))
    proposals = int((first.finals >= 0).sum())
    for caption in (
        "1 anchors", "2 proposals", "3 class boxes", "4 suppression", "5 final boxes", "432 anchors at 144 places",
        f"{proposals} proposals; {int((first.fates == 1).sum())} suppressed at IoU > 0.7",
        f"{int((trace.scores > 0.05).sum())} above 0.05", f"{counts['suppressed']} suppressed at IoU > 0.5", f"{counts['kept']} boxes",
        f"{len(trace.merged(0)) - 1} suppressed, IoU", "from its proposal (dotted): moved",
    ):  # fmt: skip
        assert caption in told, (caption, told)


def test_titles_and_names_are_left_to_the_caption():
    told = written(trace_figure(CASES["grid"](), titles=False))
    assert not any("box:0" in text or "suppression" in text for text in told) and any("above" in text for text in told)


def test_an_attribution_alone_can_be_drawn():
    model, image = detector(), picture(48, 64)
    attribution = xt.explain(model, image, "box:0", METHOD)
    alone, seen = trace_figure(attribution, dpi=60), xt.trace_figure(attribution, image=image, dpi=60)
    assert figure_bytes(alone, "png") != figure_bytes(seen, "png")
    assert figure_bytes(figure(attribution, dpi=60), "png")


def test_what_has_no_trace_is_one_line():
    with pytest.raises(XaiError, match="explained by detection-trace"):
        trace_figure(xt.explain(detector(), picture(), "box:0", "saliency"))


def test_the_file_has_a_row_for_each_candidate_and_says_by_whom(tmp_path):
    explanation = explained(detector())
    paths = save_explanation(explanation, tmp_path / "run", ("png", "svg"))
    assert [path.name for path in paths] == [
        "explanation.json", "attributions.safetensors", "figure.png", "figure.svg", "trace.json", "trace.png", "trace.svg",
    ]  # fmt: skip
    content = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert set(content) == {"xaitools", "model", "image", "image_size", "stages"} and content["image_size"] == [48, 64]
    trace = explanation.attributions[0].trace
    for stage, mine in zip(content["stages"], (trace.first, trace), strict=True):
        assert {*stage} == {
            "kind", "classes", "score_threshold", "nms", "most", "counts", "left_out", "columns", "rows",
        }  # fmt: skip
        assert stage["left_out"] == 0 and sum(stage["counts"].values()) == len(stage["rows"]) == len(mine.labels)
        rows = [dict(zip(stage["columns"], row, strict=True)) for row in stage["rows"]]
        by_candidate = {(row["candidate"], row["class"]): row for row in rows}
        for row, fate in zip(rows, mine.fates.tolist(), strict=True):
            assert row["fate"] == FATES[fate] and (row["final"] is not None) == (row["fate"] == "kept")
            assert (row["by"] is not None) == (row["fate"] == "suppressed") == (row["iou"] is not None)
            if row["by"] is not None:
                winner = by_candidate[row["by"], row["class"]]
                assert winner["fate"] in ("kept", "beyond") and winner["score"] >= row["score"] and row["iou"] >= stage["nms"]
    finals = {row["final"]: row for row in rows if row["final"] is not None}
    for index, found in enumerate(json.loads((tmp_path / "run" / "explanation.json").read_text())["predictions"]):
        assert finals[index]["class"] == found["label"] and finals[index]["box_xyxy"] == pytest.approx(found["box_xyxy"], abs=0.0051)
    assert len((tmp_path / "run" / "trace.json").read_text().splitlines()) == 2 + sum(2 + len(each["rows"]) for each in content["stages"])


def test_the_weakest_rows_of_a_large_network_are_left_out(monkeypatch):
    monkeypatch.setattr(documents, "MOST_IDLE", 5)
    explanation = explained(MODELS["yolo"]())
    trace = explanation.attributions[0].trace
    [stage] = documents.trace_document(explanation, trace)["stages"]
    idle = [row for row in stage["rows"] if row[6] in ("below", "empty", "unranked")]
    assert len(idle) == 5 and stage["left_out"] == len(trace.labels) - len(stage["rows"]) > 0
    assert {row[0] for row in stage["rows"]} >= set(trace.candidates[trace.winners >= 0].tolist())
    scores = trace.scores[torch.isin(trace.fates, torch.tensor([2, 3, 4]))]
    assert min(row[2] for row in idle) == pytest.approx(float(scores.sort(descending=True).values[4]), rel=1e-4)


def test_a_trace_is_replaced_with_its_explanation_and_other_files_are_left_alone(tmp_path):
    save_explanation(explained(detector()), tmp_path)
    assert load_explanation(tmp_path).methods == (METHOD,)
    save_explanation(explained(detector(), methods=("saliency",)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attributions.safetensors", "explanation.json", "figure.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "trace.png").write_text("mine")
    with pytest.raises(PlanError, match=r"trace\.png"):
        save_explanation(explained(detector()), tmp_path / "mine")


def test_a_sheet_keeps_the_traces_as_data(tmp_path):
    several = [explained(detector()), replace(explained(detector()), name="other")]
    save_explanations(several, tmp_path, layout="sheet")
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["attributions.safetensors", "explanation.json", "trace.json"]


def test_the_command_line_writes_it(tmp_path, capsys):
    arguments = [
        "explain",
        "scenes:test?n=1",
        "--model",
        "yolo-scenes",
        "--method",
        METHOD,
        "--out",
        str(tmp_path / "out"),
        "--format",
        "pdf,png",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json", "--no-titles"])
    assert ended.value.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"trace.json", "trace.pdf", "trace.png", "figure.pdf"}
    row = json.loads(capsys.readouterr().out)["explanations"][0]
    assert row["method"] == METHOD and "error" not in row
    with pytest.raises(SystemExit) as ended:
        main(["explain", "scenes:test?n=1", "--model", "unet-scenes", "--method", METHOD])
    assert ended.value.code == 2 and "needs candidates" in capsys.readouterr().err
