"""``xaitools evaluate`` as others script against it."""

import json
import re

import pytest

from xaitools.cli import main

SCENES = "scenes:test?n=12"
SEGMENTER, DETECTOR = "unet-scenes", "faster-rcnn-scenes"
KEYS = {"model", "dataset", "task", "n", "skipped", "metric", "value", "ci", "metrics"}


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, arguments)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def one_line(result, word):
    status, out, err = result
    assert (status, out) == (2, "") and len(err.strip().splitlines()) == 1, result
    assert err.startswith("xaitools") and "Traceback" not in err and re.search(word, err), err


def test_the_documented_keys_and_more(run):
    status, out, _ = run(SCENES, "--model", DETECTOR, "--json", "--quiet", "--iou", "0.5:0.95:0.15")
    result = json.loads(out)
    assert status == 0 and set(result) >= KEYS and result["metric"] == "mAP50" and result["n"] == 12
    assert set(result["metrics"]) >= {
        "mAP50",
        "mAP",
        "AP50_voc07",
        "AP50_coco",
        "AP75_coco",
        "mAP_small",
        "precision",
        "recall",
        "per_class",
    }
    assert list(result["iou"]) == ["0.50", "0.65", "0.80", "0.95"] and result["iou"]["0.50"] == result["value"]
    assert sum(result["detections"]["kinds"].values()) == result["detections"]["detections"]


def test_one_other_level_becomes_the_metric_and_says_so(run):
    result = json.loads(run(SCENES, "--model", DETECTOR, "--json", "--quiet", "--iou", "0.9")[1])
    assert result["metric"] == "mAP90" and result["iou"] == {"0.90": result["value"]} and result["metrics"]["mAP90"] == result["value"]
    assert result["metrics"]["mAP50"] > result["value"] and result["detections"]["iou"] == 0.9
    assert result["ci"][0] <= result["value"] <= result["ci"][1]


def test_the_text_is_a_table_by_class(run):
    status, out, _ = run(SCENES, "--model", SEGMENTER, "--quiet")
    assert status == 0 and out.splitlines()[1].startswith("mIoU 0.") and re.search(r"class +IoU +precision +recall", out)
    status, out, _ = run(SCENES, "--model", DETECTOR, "--quiet", "--score", "0.9")
    assert status == 0 and re.search(r"class +AP50 +precision", out) and "at least 0.9" in out and re.search(r"\nall +0\.", out)


def test_groups_and_clusters(run, tmp_path):
    file = tmp_path / "groups.csv"
    rows = [f"test-{place:05},{'first' if place < 6 else 'last'},{place // 2}" for place in range(11)]
    file.write_text("id,group,video\n" + "\n".join(rows))
    status, out, err = run(SCENES, "--model", SEGMENTER, "--groups", file, "--cluster", "video", "--json")
    result = json.loads(out)
    assert status == 0 and {name: row["n"] for name, row in result["groups"]["per_group"].items()} == {"first": 6, "last": 5}
    assert result["groups"]["ungrouped"] == 1 and result["clusters"] == {"n": 7, "alone": 1}
    values = [row["value"] for row in result["groups"]["per_group"].values()]
    assert result["groups"]["gap"] == pytest.approx(max(values) - min(values))
    assert "fewer than 10 items" in err and "without a group: 1" in err and "only 7 clusters" in err
    plain = json.loads(run(SCENES, "--model", SEGMENTER, "--json")[1])
    assert plain["value"] == result["value"] and plain["ci"] != result["ci"]
    assert "gap" in run(SCENES, "--model", SEGMENTER, "--groups", file, "--quiet")[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([SCENES], "give either --model or --predictions"),
        ([SCENES, "--model", SEGMENTER, "--predictions", "DIR"], "give either --model or --predictions"),
        ([SCENES, "--predictions", "DIR"], "neither .txt nor .png"),
        ([SCENES, "--predictions", "nowhere"], "no such folder"),
        ([SCENES, "--model", DETECTOR, "--iou", "half"], "expected levels"),
        ([SCENES, "--model", DETECTOR, "--score", "2"], "score"),
        ([SCENES, "--model", SEGMENTER, "--cluster", "video"], "--groups FILE.csv"),
        ([SCENES, "--model", SEGMENTER, "--groups", "nowhere.csv"], "cannot be read"),
        ([SCENES, "--model", SEGMENTER, "--groups", "BAD"], "2 ids that the data does not have, the first 'street'"),
        ([SCENES, "--model", SEGMENTER, "--classes-map", "nowhere.csv"], "cannot be read"),
    ],
)
def test_a_wrong_argument_is_one_line(run, tmp_path, arguments, word):
    (tmp_path / "bad.csv").write_text("street,east\nroad,east\ntest-00000,east\n")
    (tmp_path / "found").mkdir()
    names = {"DIR": str(tmp_path / "found"), "BAD": str(tmp_path / "bad.csv")}
    one_line(run(*[names.get(each, each) for each in arguments]), word)


def test_predictions_in_place_of_a_model(run, data_root, tmp_path):
    data, found = f"voc:{data_root}/indoor-det#trainval", data_root / "indoor-det/detection-results"
    status, out, _ = run(data, "--predictions", found, "--json", "--limit", "20", "--quiet")
    result = json.loads(out)
    assert status == 0 and result["n"] == 20 and result["model"] == str(found) and set(result) >= KEYS
    (tmp_path / "2007_000027.txt").write_text("sofa 0.5 1 2 3 4\nsofa nan 1 2 3 4\n")
    one_line(run(data, "--predictions", tmp_path), r"2007_000027.txt, line 2: confidence is 'nan'")
    (tmp_path / "2007_000027.txt").write_text("")
    result = json.loads(run(data, "--predictions", tmp_path, "--json", "--quiet", "--limit", "3")[1])
    assert (result["n"], result["value"], len(result["skipped"])) == (1, 0.0, 2)
    assert result["metrics"]["precision"] is None and any("precision is undefined: no detection" in each for each in result["warnings"])
