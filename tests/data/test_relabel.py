from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaitools.data.relabel import ALIASES, Relabel, read_classes_map
from xaitools.errors import DataError
from xaitools.types import IGNORE, Sample


def dataset(task="instances", classes=("car", "traffic light", "zebra"), semantic=("background", "car", "traffic light", "zebra")):
    return SimpleNamespace(name="made-up", task=task, classes=classes, semantic_classes=semantic, things=frozenset(classes))


def sample(**fields):
    return Sample("photo", torch.zeros(3, 8, 8), **fields)


BOXES = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 4, 4]])


def test_indices_become_the_models():
    relabel = Relabel(dataset(), "detection", ["Traffic_Light", "person", "car"])
    masks = torch.arange(3).view(3, 1, 1).expand(3, 8, 8) > 1
    given = sample(
        label=1, boxes=BOXES, labels=torch.tensor([2, 0, 1]), masks=masks,
        ignore=torch.tensor([True, False, True]), semantic=torch.tensor([[0, 1, 2, 3, IGNORE]]),
    )  # fmt: skip
    result = relabel(given)
    assert result.label == 0
    assert result.labels.tolist() == [2, 0]
    assert result.boxes.tolist() == BOXES[1:].tolist()
    assert result.ignore.tolist() == [False, True]
    assert torch.equal(result.masks, masks[1:])
    assert result.semantic.tolist() == [[IGNORE, 2, 0, IGNORE, IGNORE]]
    assert given.labels.tolist() == [2, 0, 1] and result.image is given.image


def test_an_exact_name_goes_before_a_similar_one():
    relabel = Relabel(dataset(classes=("Car", "car", "CAR")), "detection", ["car", "Car"])
    assert [relabel.model_index(name) for name in ("Car", "car", "CAR", "bus")] == [1, 0, 0, None]


@given(st.lists(st.text("abz", min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from([" ", "_", "-"]), st.booleans())
def test_case_and_separators_do_not_matter(words, separator, upper):
    name = separator.join(words)
    relabel = Relabel(dataset(classes=(name.upper() if upper else name,)), "detection", ["0", " ".join(words)])
    assert relabel.model_index(name) == 1


def test_what_is_not_judged_is_said():
    relabel = Relabel(dataset(), "detection", ["car", "traffic light", "person"])
    assert relabel.warnings == [
        "not judged, because the model does not know them: zebra (their boxes are left out)",
        "not judged, because the data has no such class: person",
    ]
    assert Relabel(dataset(), "detection", ["zebra", "traffic-light", "car"]).warnings == []


def test_long_lists_are_cut():
    relabel = Relabel(dataset(), "detection", ["car", "traffic light", "zebra", *(f"thing {i}" for i in range(20))])
    assert relabel.warnings[0].endswith("thing 7 and 12 more")


def test_fewer_than_half_is_refused_with_the_nearest_names():
    with pytest.raises(DataError, match=r"knows 1 of the data's 3 classes.*traffic light \(nearest: traffic lamp\), zebra;"):
        Relabel(dataset(), "detection", ["traffic lamp", "car"])
    Relabel(dataset(classes=("car", "zebra")), "detection", ["car"])  # half is enough


def test_a_segmentation_model_is_matched_by_the_semantic_classes():
    relabel = Relabel(dataset(classes=("unheard of",)), "segmentation", ["background", "car", "zebra", "traffic light"])
    assert relabel(sample(semantic=torch.tensor([[3, 2]]))).semantic.tolist() == [[2, 3]]
    assert relabel.warnings == []


def test_an_unknown_image_label_becomes_none():
    relabel = Relabel(dataset("classification"), "classification", ["car", "traffic light"])
    assert relabel(sample(label=2)).label is None
    assert "their images are left out" in relabel.warnings[0]


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        (dataset("detection", semantic=()), "segmentation", "has no semantic maps"),
        (dataset("segmentation"), "detection", "has no boxes"),
        (dataset("classification"), "instances", "has no boxes"),
    ],
)
def test_data_without_the_truth_is_refused(data, task, message):
    with pytest.raises(DataError, match=message):
        Relabel(data, task, ["background", "car", "traffic light", "zebra"])


@pytest.mark.parametrize(("task", "what"), [("segmentation", "semantic maps"), ("detection", "boxes"), ("classification", "image labels")])
def test_a_sample_without_the_truth_is_refused(task, what):
    relabel = Relabel(dataset(), task, ["background", "car", "traffic light", "zebra"])
    with pytest.raises(DataError, match=rf"^photo: no {what}"):
        relabel(sample())


def test_an_image_without_objects_stays():
    result = Relabel(dataset(), "detection", ["car", "zebra"])(sample(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long()))
    assert result.boxes.shape == (0, 4) and len(result.labels) == 0


@pytest.mark.parametrize(
    ("voc", "coco"),
    [
        ("aeroplane", "airplane"), ("motorbike", "motorcycle"), ("diningtable", "dining table"), ("pottedplant", "potted plant"),
        ("tvmonitor", "tv"), ("tv/monitor", "tv"), ("sofa", "couch"), ("Pedestrian", "person"), ("Bike", "bicycle"),
    ],
)  # fmt: skip
def test_common_names_of_one_class_are_known_both_ways(voc, coco):
    for data_name, model_name in ((voc, coco), (coco, voc)):
        relabel = Relabel(dataset(classes=(data_name,)), "detection", ["zebra", model_name])
        assert relabel.model_index(data_name) == 1
        assert relabel.warnings[0] == f"taken for one class under two names: {data_name} as {model_name}"


def test_an_alias_gives_way_to_the_name_itself_and_to_doubt():
    assert Relabel(dataset(classes=("sofa",)), "detection", ["couch", "sofa"]).model_index("sofa") == 1
    relabel = Relabel(dataset(classes=("tvmonitor", "zebra")), "detection", ["monitor", "television", "zebra"])
    assert relabel.model_index("tvmonitor") is None


def test_no_name_stands_in_two_groups_of_aliases():
    names = [name for group in ALIASES for name in group]
    assert len(set(names)) == len(names) and all(name == name.casefold() for name in names)


def test_a_classes_map_merges_classes():
    relabel = Relabel(
        dataset(), "instances", ["background", "vehicle", "animal"], {"car": "Vehicle", "traffic light": "vehicle", "zebra": "animal"}
    )
    given = sample(boxes=BOXES, labels=torch.tensor([2, 0, 1]), semantic=torch.tensor([[0, 1, 2, 3, IGNORE]]))
    result = relabel(given)
    assert result.labels.tolist() == [2, 1, 1] and result.boxes.tolist() == BOXES.tolist()
    assert result.semantic.tolist() == [[0, 1, 1, 2, IGNORE]]


def test_a_classes_map_goes_before_the_names():
    relabel = Relabel(dataset(), "detection", ["car", "zebra", "traffic light"], {"Car": "zebra"})
    assert [relabel.model_index(name) for name in ("car", "zebra")] == [1, 1]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"zebar": "car"}, "unknown data class 'zebar'; did you mean zebra"),
        ({"zebra": "cra"}, "unknown model class 'cra'; did you mean car"),
    ],
)
def test_strange_names_in_a_classes_map_are_refused(mapping, message):
    with pytest.raises(DataError, match=message):
        Relabel(dataset(), "detection", ["car", "traffic light", "zebra"], mapping)


def test_the_refusal_of_strangers_names_the_way_out():
    with pytest.raises(DataError, match="--classes-map FILE.csv"):
        Relabel(dataset(), "detection", ["lorry"])


def test_missing_truth_is_explained_where_the_data_says_why():
    relabel = Relabel(dataset(), "detection", ["car", "traffic light", "zebra"])
    with pytest.raises(DataError, match=r"photo: no boxes \(a dummy\); a detection model"):
        relabel(sample(tags={"missing": "a dummy"}))


@pytest.mark.parametrize("head", ["", "model,data\n", "Model class, Data class\n", "\ufeffmodel,data\r\n"])
def test_a_classes_map_is_read_with_or_without_a_head(head, tmp_path):
    file = tmp_path / "map.csv"
    file.write_text(f'{head}vehicle,car\n\n"vehicle", "truck, large"\nperson,rider\n', encoding="utf-8")
    assert read_classes_map(file) == {"car": "vehicle", "truck, large": "vehicle", "rider": "person"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "names no class"),
        (b"model,data\n", "names no class"),
        (b"vehicle;car\n", "line 1"),
        (b"a,b\nvehicle,\n", "line 2"),
        (b"a,b,c\n", "line 1"),
        (b"vehicle,car\ntruck,car\n", "line 2.*twice"),
        (b'vehicle,"car\n', "line 1"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a," + b"x" * 200_000, "line 1"),
        (b"a,b\n" * 2**19, "1 MB"),
    ],
)
def test_a_broken_classes_map_is_refused_in_one_line(data, word, tmp_path):
    file = tmp_path / "map.csv"
    file.write_bytes(data)
    with pytest.raises(DataError, match=word) as caught:
        read_classes_map(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_classes_map_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path, str(tmp_path / "a\0b")):
        with pytest.raises(DataError, match="cannot be read"):
            read_classes_map(path)
