from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from xaitools.data import load_dataset
from xaitools.errors import DataError
from xaitools.metrics import evaluate
from xaitools.metrics.stored import read_stored
from xaitools.types import Sample


class Boxes:
    """Three images, each with a cat at the left and a traffic light at the right."""

    task, things, semantic_classes = "detection", frozenset(), ()
    classes, ids = ("cat", "traffic light"), ["a", "b", "c"]

    def __init__(self, name="made-up"):
        self.name = name

    def __len__(self):
        return 3

    def __getitem__(self, index):
        boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
        tags = {"image_id": 40 + index}
        return Sample(self.ids[index], torch.zeros(3, 20, 40), boxes=boxes, labels=torch.tensor([0, 1]), tags=tags)


def folder(tmp_path, **files):
    place = tmp_path / "found"
    place.mkdir()
    for name, text in files.items():
        (place / f"{name}.txt").write_text(text)
    return place


GOOD = "cat 0.9 0 0 10 10\ntraffic_light 0.8 20 0 30 10\n"


def test_text_files_are_read(tmp_path):
    place = folder(tmp_path, a=GOOD, b="", d=GOOD)
    data = Boxes()
    stored = read_stored(place, data)
    prediction = stored.of(data[0])
    assert prediction.classes == ("cat", "traffic_light") and prediction.scores.tolist() == [0.9, 0.8]
    assert prediction.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]
    result = evaluate(stored, data, replicates=10)
    assert (result["n"], result["value"]) == (2, 0.5)  # b was looked at, and nothing was found
    assert [row["id"] for row in result["skipped"]] == ["c"] and "no file c.txt" in result["skipped"][0]["reason"]
    assert any("1 files of the predictions belong to no item" in each and "d.txt" in each for each in result["warnings"])


def test_corners_count_as_the_layouts_do(tmp_path):
    place, sample = folder(tmp_path, a="cat 0.9 1 1 10 10\n"), Boxes()[0]
    assert read_stored(place, Boxes()).of(sample).boxes.tolist() == [[1, 1, 10, 10]]
    assert read_stored(place, Boxes("voc:DIR#test")).of(sample).boxes.tolist() == [[0, 0, 10, 10]]


def test_rows_are_sorted_and_unknown_classes_kept(tmp_path):
    place = folder(tmp_path, a="moon 0.2 0 0 5 5\ncat 0.9 0 0 10 10\n", b="cat 0.3 0 0 10 10\n", c="")
    result = evaluate(read_stored(place, Boxes()), Boxes(), replicates=10, score=0.0)
    assert result["metrics"]["per_class"] == {"cat": pytest.approx(2 / 3), "traffic light": 0.0, "moon": None}
    assert result["metrics"]["precision"] == pytest.approx(2 / 3)
    assert any("1 of 3 detections are of classes without any truth here (moon)" in each for each in result["warnings"])


def test_names_lead_to_the_data_through_a_map(tmp_path):
    place = folder(tmp_path, a="feline 0.9 0 0 10 10\nTraffic Light 0.8 20 0 30 10\n", b=GOOD, c=GOOD)
    result = evaluate(read_stored(place, Boxes(), {"cat": "feline"}), Boxes(), classes_map={"cat": "feline"}, replicates=10, limit=1)
    assert result["value"] == 1 and set(result["metrics"]["per_class"]) >= {"feline", "Traffic Light"}


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("cat nan 0 0 10 10", "confidence is 'nan'"),
        ("cat 0.9 0 0 inf 10", "right is 'inf'"),
        ("cat 0.9 0 0 1e99 10", "right is '1e99'"),
        ("cat 0.9 0 0 10", "5 columns"),
        ("cat 0.9 0 0 10 10 1", "7 columns"),
        ("two words 0.9 0 0 10 10", "7 columns"),
        ("cat high 0 0 10 10", "confidence is 'high'"),
        ("cat 90 0 0 10 10", "expected 0 to 1"),
        ("cat -0.1 0 0 10 10", "expected 0 to 1"),
        ("\x00\x01\x02", "1 columns"),
        ("x" * 100_000, "1 columns"),
    ],
)
def test_hostile_text_is_one_line_with_file_and_line(tmp_path, row, word):
    with pytest.raises(DataError, match=rf"^a.txt, line 3: .*{word}") as caught:
        read_stored(folder(tmp_path, a=f"{GOOD}{row}\n"), Boxes())
    assert len(str(caught.value)) < 250


def test_a_name_cannot_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret.txt").write_text(GOOD)
    data = Boxes()
    data.ids = ["../secret", "b", "c"]
    with pytest.raises(DataError, match="leads outside"):
        read_stored(folder(tmp_path, b=GOOD), data)


def test_what_is_no_predictions_is_one_line(tmp_path):
    for name, word in (
        ("nowhere", "no such folder"),
        ("empty", "neither .txt nor .png"),
        ("both", "both .txt and .png"),
        ("file.xml", "no .json"),
    ):
        place = tmp_path / name
        if name == "file.xml":
            place.write_text("<a/>")
        elif name != "nowhere":
            place.mkdir()
        if name == "both":
            (place / "a.txt").write_text(GOOD)
            Image.new("L", (40, 20)).save(place / "a.png")
        with pytest.raises(DataError, match=word):
            read_stored(place, Boxes())
    with pytest.raises(DataError, match="named after an item"):
        read_stored(folder(tmp_path, z=GOOD), Boxes())


# ---- COCO's results --------------------------------------------------------------------------------------------


def results(tmp_path, rows):
    path = tmp_path / "results.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


ROW = {"image_id": 40, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}


def test_coco_results_are_read(tmp_path):
    rows = [ROW, ROW | {"image_id": "b", "category_id": 2, "bbox": [20, 0, 10, 10], "score": 1}, ROW | {"image_id": 99}]
    result = evaluate(read_stored(results(tmp_path, rows), Boxes()), Boxes(), replicates=10)
    assert result["n"] == 3 and result["skipped"] == []  # an image without an entry has no detections
    assert result["metrics"]["per_class"] == {"cat": pytest.approx(1 / 3), "traffic light": pytest.approx(1 / 3)}
    assert any("1 images of the predictions are not in the data" in each and "'99'" in each for each in result["warnings"])


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ("{}", "holds a dict"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([ROW, 3], "entry 1: no image_id"),
        ([ROW | {"category_id": 3}], "entry 0: category_id '3' is none of the 2"),
        ([ROW | {"bbox": [0, 0, 10]}], "entry 0: a bbox"),
        ([ROW | {"bbox": [0, 0, -10, 10]}], "entry 0: a bbox of -10 x 10"),
        ([ROW | {"bbox": [0, 0, 1e300, 10]}], "entry 0: bbox is '1e"),
        ([ROW | {"score": None}], "entry 0: score is 'None'"),
        ([ROW | {"score": 3}], "expected 0 to 1"),
        ('[{"image_id": 40, "category_id": 1, "bbox": [0, 0, NaN, 1], "score": 1}]', "bbox is 'nan'"),
    ],
)
def test_hostile_results_are_one_line(tmp_path, rows, word):
    with pytest.raises(DataError, match=word) as caught:
        read_stored(results(tmp_path, rows), Boxes())
    assert len(str(caught.value)) < 250


def test_results_on_coco_use_its_own_ids(data_root, tmp_path):
    data = load_dataset(f"coco:{data_root}/coco-mini#val2017")
    content = json.loads((data_root / "coco-mini/annotations/instances_val2017.json").read_text())
    rows = [
        {key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for row in content["annotations"]
        if not row["iscrowd"]
    ]
    result = evaluate(read_stored(results(tmp_path, rows), data), data, replicates=10)
    assert result["value"] == 1 and result["metrics"]["mAP"] == pytest.approx(1) and result["metrics"]["recall"] == 1
    whole = [row for row in content["annotations"] if not row["iscrowd"]]
    masked = [row | {"segmentation": each["segmentation"]} for row, each in zip(rows, whole, strict=True)]
    result = evaluate(read_stored(results(tmp_path, masked), data), data, replicates=10, limit=12)
    assert (result["task"], result["metrics"]["mask_mAP50"]) == ("instances", 1.0)


# ---- class maps ------------------------------------------------------------------------------------------------


class Maps(Boxes):
    task, classes, semantic_classes = "segmentation", (), ("sky", "road")

    def __getitem__(self, index):
        semantic = torch.zeros(20, 40, dtype=torch.int64)
        semantic[10:] = 1
        return Sample(self.ids[index], torch.zeros(3, 20, 40), semantic=semantic)


def test_class_maps_are_read(tmp_path):
    right = np.zeros((20, 40), np.uint8)
    right[10:] = 1
    pictures = {"a": right, "b": 1 - right, "c": right + 1}
    for name, values in pictures.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    result = evaluate(read_stored(tmp_path, Maps()), Maps(), replicates=10)
    assert (result["n"], result["metrics"]["pixel_accuracy"], result["value"]) == (2, 0.5, pytest.approx(1 / 3))
    assert "class id 2; expected 0 to 1" in result["skipped"][0]["reason"]
    with pytest.raises(DataError, match="has no semantic maps"):
        read_stored(tmp_path, Boxes())
    Image.fromarray(right[:5]).save(tmp_path / "a.png")
    assert [row["id"] for row in evaluate(read_stored(tmp_path, Maps()), Maps(), replicates=10)["skipped"]] == ["a", "c"]


# ---- real ------------------------------------------------------------------------------------------------------


def plain_voc(root):
    """AP by class of the folder's own text files, from nothing but the files: the devkit's loop, corners with their pixel."""
    truths, found = {}, {}
    for path in sorted((root / "ground-truth").glob("*.txt")):
        for line in path.read_text().split("\n"):
            if line:
                name, *box = line.split()
                box = [float(each) for each in box[:4]]
                box[3] = min(box[3], 480)  # as in the annotations, see the folder's note
                truths.setdefault(name, {}).setdefault(path.stem, []).append(box)
    for path in sorted((root / "detection-results").glob("*.txt")):
        for line in path.read_text().split("\n"):
            if line:
                name, score, *box = line.split()
                found.setdefault(name, []).append((float(score), path.stem, [float(each) for each in box]))
    every, eleven = [], []
    for name, images in truths.items():
        total, taken, right, curve = sum(map(len, images.values())), set(), 0, []
        for seen, (_, image, box) in enumerate(sorted(found.get(name, []), key=lambda row: -row[0]), 1):
            best, where = 0.0, -1
            for place, other in enumerate(images.get(image, [])):
                wide, high = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) + 1 for i in (0, 1))
                if wide > 0 and high > 0:
                    areas = [(each[2] - each[0] + 1) * (each[3] - each[1] + 1) for each in (box, other)]
                    if (overlap := wide * high / (sum(areas) - wide * high)) > best:
                        best, where = overlap, place
            if best >= 0.5 and (image, where) not in taken:
                taken.add((image, where))
                right += 1
            curve.append((right / total, right / seen))
        best_from = [max(precision for _, precision in curve[place:]) for place in range(len(curve))]
        recalls = [0.0] + [recall for recall, _ in curve]
        every.append(sum((recalls[place + 1] - recalls[place]) * best_from[place] for place in range(len(curve))))
        eleven.append(sum(max((p for r, p in curve if r >= level / 10), default=0) for level in range(11)) / 11)
    return sum(every) / len(every), sum(eleven) / len(eleven)


def test_a_real_detectors_output_has_the_number_of_a_plain_program(data_root):
    data = load_dataset(f"voc:{data_root}/indoor-det#trainval")
    result = evaluate(read_stored(data_root / "indoor-det/detection-results", data), data, replicates=20, score=0.0)
    every, eleven = plain_voc(data_root / "indoor-det")
    assert every == pytest.approx(0.298236, abs=5e-7)
    assert result["value"] == pytest.approx(every, abs=1e-6) and result["metrics"]["AP50_voc07"] == pytest.approx(eleven, abs=1e-6)
    assert result["n"] == 60 and result["detections"]["detections"] == 368 and result["detections"]["truths"] == 493
    assert sum(result["detections"]["kinds"].values()) == 368
