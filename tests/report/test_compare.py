"""The figures and tables of a comparison, from documents made by hand."""

from __future__ import annotations

import csv
import io
import json
import random

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from xaitools.errors import PlanError, XaiError
from xaitools.report.compare import FIELDS, compare_figure, save_compare, table_markdown, table_text

MEASURED = {"device": ["cpu"], "threads": 2, "torch": "2", "rounds": 5, "memory": "weights and activations"}


def row(model, value=0.5, gflops=1.0, parameters=10**6, **others):
    return {
        "model": model, "task": "segmentation", "dataset": "camvid:camvid#test", "metric": "mIoU", "value": value,
        "ci": None if value is None else [value - 0.02, value + 0.02], "n": 10, "image": "a", "image_size": [96, 128], "gflops": gflops,
        "parameters": parameters, "memory_mb": 3.0, "latency_ms": 5.0, "quartiles_ms": [4.0, 6.0], "latency_ratio": 1.0, "latency_n": 5,
        "train_petaflop": None,
    } | others  # fmt: skip


def document(*rows):
    return {"rows": list(rows), "measured": MEASURED}


def crowd(count=14):
    generator = random.Random(3)
    draw = generator.uniform
    rows = [(0.5 + 0.1 * draw(0, 1), 10 ** draw(0, 1.5), int(10 ** draw(5, 8))) for _ in range(count)]
    return document(*(row(f"network-{place}", *each) for place, each in enumerate(rows)))


def labels(drawing, document):
    renderer = FigureCanvasAgg(drawing).get_renderer()
    names = [each["model"] for each in document["rows"]]
    return {text.get_text(): text.get_window_extent(renderer) for text in drawing.texts if text.get_text() in names}


def test_every_model_is_named_and_no_label_lies_on_another():
    told = crowd()
    found = labels(compare_figure(told), told)
    assert len(found) == 14
    boxes = list(found.values())
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert not one.padded(-1).overlaps(other.padded(-1))


def test_a_panel_for_each_task_and_dataset_on_one_logarithmic_axis():
    told = document(row("a"), row("b", gflops=20.0), row("c", task="detection", metric="mAP50"), row("d", dataset="scenes:test"))
    drawing = compare_figure(told)
    panels = [ax for ax in drawing.axes if ax.get_ylabel()]
    assert [ax.get_ylabel() for ax in panels] == ["mIoU", "mAP50", "mIoU"]
    assert all(ax.get_xscale() == "log" for ax in panels) and len({ax.get_xlim() for ax in panels}) == 1
    assert all("GFLOP" in ax.get_xlabel() for ax in panels)


def test_areas_are_proportional_to_parameters():
    told = document(
        row("small", gflops=1.0, parameters=10**6), row("large", gflops=50.0, parameters=4 * 10**6), row("unknown", parameters=None)
    )
    panel = next(ax for ax in compare_figure(told).axes if ax.get_ylabel())
    sizes = sorted(patch.height for patch in panel.patches)
    assert sizes[2] / sizes[1] == pytest.approx(2)
    assert sum(patch.get_facecolor()[3] == 0 for patch in panel.patches) == 1  # hollow where unknown


def test_what_cannot_be_drawn_is_named():
    told = document(row("seen"), row("box", gflops=None), row("strange", value=None))
    texts = [text.get_text() for text in compare_figure(told).texts]
    assert any("box, strange" in text for text in texts)
    with pytest.raises(XaiError, match="nothing to draw"):
        compare_figure(document(row("box", gflops=None)))
    with pytest.raises(XaiError, match="expected gflops or train_petaflop"):
        compare_figure(told, "latency_ms")


def test_undefined_is_said_in_tables_and_empty_in_csv(tmp_path):
    told = document(row("seen"), row("=box|", gflops=None, value=None, metric=None, ci=None))
    assert table_text(told).count("undefined") >= 3 and "camvid" in table_text(told).splitlines()[0]
    assert "=box\\|" in table_markdown(told) and "5 rounds" in table_markdown(told)
    save_compare(told, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/compare.csv").read_text())))
    assert tuple(rows[0]) == FIELDS and rows[1]["gflops"] == "" and rows[1]["model"] == "'=box|"
    assert float(rows[0]["ci_low"]) == pytest.approx(0.48)


def test_files_are_written_again_and_others_left_alone(tmp_path):
    told = document(row("a", train_petaflop=0.2))
    files = save_compare(told, tmp_path / "out", ("png", "pdf", "svg"))
    names = {path.name for path in files}
    assert names == {
        "compare.json",
        "compare.md",
        "compare.csv",
        *(f"{name}.{form}" for name in ("figure", "efficiency") for form in ("png", "pdf", "svg")),
    }
    assert json.loads((tmp_path / "out/compare.json").read_text())["rows"][0]["model"] == "a"
    before = (tmp_path / "out/figure.svg").read_bytes()
    save_compare(document(row("a")), tmp_path / "out", ("svg",))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.md", "compare.csv", "figure.svg"}
    assert (tmp_path / "out/figure.svg").read_bytes() == before
    (tmp_path / "out/thesis.tex").write_text("years")
    with pytest.raises(PlanError, match=r"thesis.tex"):
        save_compare(told, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="give a folder"):
        save_compare(told, tmp_path / "file")
