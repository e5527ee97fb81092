from __future__ import annotations

import numpy as np
import pytest

from xaitools.errors import DataError
from xaitools.metrics import Table, image_weights
from xaitools.metrics.groups import clusters_of, group_document, groups_of, read_columns

IDS = [f"day_{place:02}" for place in range(20)] + [f"night_{place:02}" for place in range(20)]


def written(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


# ---- the file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["", "item id,group\n", "Image_ID, group\n", "\ufeffid,group\n", "file,group\n\n"])
def test_a_header_is_tolerated(tmp_path, head):
    columns = read_columns(written(tmp_path, f"{head}day_00, east\nday_01,west\n\nday_02,\n"), IDS)
    assert columns == {"group": {"day_00": "east", "day_01": "west"}}


def test_more_columns_have_their_names(tmp_path):
    columns = read_columns(written(tmp_path, "id,video,group\nday_00,v1,east\nday_01,v1,west\n"), IDS)
    assert groups_of(columns) == {"day_00": "east", "day_01": "west"}
    assert clusters_of("video", IDS, columns) == {"day_00": "v1", "day_01": "v1"}
    assert groups_of(read_columns(written(tmp_path, "day_00,east,v1\n"), IDS)) == {"day_00": "east"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("day_00,east\nday_99,east\ndawn,east\n", "2 ids that the data does not have, the first 'day_99'"),
        ("group of item,group\nday_00,east\n", "1 ids .*'group of item'"),
        ("day_00,east\nday_00,west\n", "line 2: 'day_00' stands there twice"),
        ("day_00,east\nday_01,west,far\n", "line 2: 3 columns, expected 2"),
        ("day_00\n", "line 1: 1 columns, expected 2"),
        ("id,a,a\nday_00,x,y\n", "expected 'item id, group'"),
        ("", "empty"),
        ("\n , \n", "empty"),
        ('day_00,"' + "x" * 200_000, "not a CSV file"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, word):
    with pytest.raises(DataError, match=word) as caught:
        read_columns(written(tmp_path, text), IDS)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"day_00,\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_columns(tmp_path / "a.csv", IDS)
    with pytest.raises(DataError, match="cannot be read"):
        read_columns(tmp_path / "b.csv", IDS)


# ---- clusters --------------------------------------------------------------------------------------------------


def test_a_regular_expression_names_clusters():
    found = clusters_of(r"^(day|night)_", [*IDS, "dawn"])
    assert len(found) == 40 and set(found.values()) == {"day", "night"} and "dawn" not in found


@pytest.mark.parametrize(
    ("text", "word"), [("day", "has 0 groups"), ("(d)(a)", "has 2 groups"), ("(", "no regular expression"), ("(x)", "matches none")]
)
def test_a_bad_cluster_is_one_line(text, word):
    with pytest.raises(DataError, match=word):
        clusters_of(text, IDS, {"video": {}})


# ---- numbers ---------------------------------------------------------------------------------------------------


def guesses(right):
    return [{"label": np.array([0]), "guess": np.array([int(not each)])} for each in right]


def documented(right, groups, clusters=None, seed=0):
    rows = guesses(right)
    ids = [str(place) for place in range(len(right))]
    weights = image_weights(ids, seed=seed, replicates=500, clusters=clusters)
    return group_document(lambda places: Table("classification", ("cat", "dog"), [rows[place] for place in places]),
                          groups, weights, seed=seed, clusters=clusters)  # fmt: skip


def test_worst_group_and_gap():
    groups = ["east"] * 40 + ["west"] * 40 + ["north"] * 4 + [None] * 3
    found = documented([True] * 36 + [False] * 4 + [True] * 20 + [False] * 20 + [True, True, True, False] + [True] * 3, groups)
    assert {name: (row["n"], row["value"], row["small"]) for name, row in found["per_group"].items()} == {
        "east": (40, 0.9, False), "west": (40, 0.5, False), "north": (4, 0.75, True),
    }  # fmt: skip
    assert (found["worst"], found["best"], found["ungrouped"]) == ("west", "east", 3)
    assert found["gap"] == pytest.approx(0.4) and 0.1 < found["gap_ci"][0] < 0.35 and 0.45 < found["gap_ci"][1] < 0.7
    # two proportions of 40: standard error of the difference is 0.092
    assert found["gap_ci"][1] - found["gap_ci"][0] == pytest.approx(3.92 * 0.092, rel=0.15)
    assert 0.02 < found["p"] < 0.3  # four images alone often make such a gap
    assert documented([True] * 36 + [False] * 4 + [True] * 20 + [False] * 20, groups[:80])["p"] < 0.02


def test_groups_that_do_not_differ_are_told_from_chance():
    generator = np.random.default_rng(0)
    found = documented(generator.random(200) < 0.7, ["a", "b", "c", "d"] * 50)
    assert found["gap"] > 0.02 and found["gap_random"] > 0.05 and found["p"] > 0.1


def test_the_gap_is_as_unsure_as_its_clusters():
    groups, clusters = ["a"] * 60 + ["b"] * 60, [str(place // 20) for place in range(120)]
    right = [True] * 60 + [False] * 20 + [True] * 40  # one of six clusters is wrong
    alone, together = documented(right, groups), documented(right, groups, clusters)
    width = [found["gap_ci"][1] - found["gap_ci"][0] for found in (alone, together)]
    assert width[1] > 2 * width[0]
    assert alone["p"] < 0.02 and together["p"] > 0.5
    assert documented(right, groups, ["one"] * 120)["p"] is None  # a cluster with several groups cannot be dealt


def test_one_group_has_no_gap_and_undefined_stays_undefined():
    found = documented([True] * 12, ["a"] * 12)
    assert (found["worst"], found["gap"], found["gap_ci"]) == ("a", None, None)
    rows = [{"label": np.array([-1]), "guess": np.array([0])}] * 12
    found = group_document(
        lambda places: Table("classification", ("cat", "dog"), [rows[place] for place in places]), ["a", "b"] * 6, np.ones((4, 12), int)
    )
    assert found["worst"] is None and found["gap"] is None and found["per_group"]["a"]["value"] is None
