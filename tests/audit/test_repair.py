"""Which images carry an artefact and what is done about it, on a model whose answer is known by hand: a white corner makes discs."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.audit.test_shift import CORNER, corner
from tests.probes.toys import CLASSES, SIDE, Shapes, reader
from xaitools.audit.repair import HOSTS, Repair, repair
from xaitools.cli import main
from xaitools.data import load_dataset
from xaitools.data.repaired import Repaired, read_repair
from xaitools.errors import DataError, PlanError, XaiError
from xaitools.report.repair import save_repair
from xaitools.types import Sample

PLACE = [edge / SIDE for edge in CORNER]
REPORT = {
    "model": "corner",
    "dataset": "shapes-24",
    "findings": [{"shortcut": "artifact", "verdict": "relies", "declared": False}],
    "spots": {
        "classes": {
            "disc": {
                "place": {"xyxy": PLACE, "share": 1.0, "others": 0.0, "moved": {"value": 1.0, "ci": [1.0, 1.0], "images": 12}},
                "elsewhere": {"moved": None},
            },
            "square": {"place": {"xyxy": [0.0, 0.0, 0.2, 0.2], "share": 0.2, "others": 0.0, "moved": None}, "elsewhere": {"moved": None}},
        }
    },
}
TAGGED = (0, 2, 5, 8, 14)
"""Discs have even numbers, squares odd ones."""


class Some(Shapes):
    """Those ``tagged`` have a white lower right corner, which covers what is there but for the object."""

    def __init__(self, n: int = 16, *, tagged: Collection[int] = TAGGED, **options: object) -> None:
        super().__init__(n, **options)
        self.tagged = tagged

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if index not in self.tagged:
            return sample
        image = sample.image.clone()
        image[:, 26:, 26:] = 1
        return replace(sample, image=torch.where(sample.masks[0], sample.image, image))


class Covering(Some):
    """The objects of ``covering`` lie over the corner, from column ``left`` on."""

    covering, left = (2, 6), 20

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if index not in self.covering:
            return sample
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        mask[:, 24:, self.left :] = True
        return replace(sample, masks=mask, boxes=torch.tensor([[float(self.left), 24, 32, 32]]), semantic=mask[0] * (sample.labels + 1))


class Partly(Covering):
    """They leave two thirds of it free, which is too little to carry it."""

    left = 30


def carriers(found: Repair) -> list[str]:
    return [row["id"] for row in found.rows if row["carries"]]


def names(indices: Collection[int]) -> list[str]:
    return [f"shape-{index:03d}" for index in indices]


def changed(report: dict, *path: object, value: object) -> dict:
    report = copy.deepcopy(report)
    inner = report
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return report


@pytest.mark.parametrize("made", [Some, Partly])
def test_what_carries_it_is_found_and_nothing_else(made):
    data, model = made(broken={3}), corner()
    seen: list[tuple[int, int]] = []
    found = repair(model, data, REPORT, batch_size=5, progress=lambda *done: seen.append(done))
    assert carriers(found) == names(each for each in TAGGED if made is Some or each != 2) and seen == [
        (5, 16),
        (10, 16),
        (15, 16),
        (16, 16),
    ]
    assert [each["id"] for each in found.document["skipped"]] == names([3]) and found.document["n"] == len(found.rows) == 15
    hosts = [int(id[-3:]) for id in found.document["artefacts"][0]["asked_in"]]
    assert len(hosts) == HOSTS and all(host % 2 and host not in (3, *TAGGED) for host in hosts)
    for row in found.rows:  # pixel by pixel
        index, rises = int(row["id"][-3:]), []
        for host in (data[each] for each in hosts):
            image, sample = host.image.clone(), data[index]
            for y in range(26, SIDE):
                for x in range(26, SIDE):
                    if not sample.masks[0, y, x]:
                        image[:, y, x] = sample.image[:, y, x]
            map_ = model.predict(image[None])[0].semantic
            rises.append(sum(int(map_[y, x]) == CLASSES.index("disc") for y, x in host.masks[0].nonzero().tolist()) / int(host.masks.sum()))
        assert row["effect"] == pytest.approx(sum(rises) / len(rises), abs=1e-6)
    assert [row["class"] for row in found.rows[:2]] == ["disc", "square"]
    assert {(row["left"], row["top"], row["right"], row["bottom"]) for row in found.rows} == {CORNER}


def test_the_batches_the_order_and_the_limit_change_no_answer():
    whole = repair(corner(), Some(), REPORT).rows
    assert repair(corner(), Some(), REPORT, batch_size=1).rows == whole
    assert repair(corner(), Some(), REPORT, limit=7).rows == whole[:7]


def test_a_model_that_does_not_read_it_finds_it_nowhere():
    found = repair(reader("object"), Some(), REPORT, action="drop")
    assert not carriers(found) and {row["action"] for row in found.rows} == {"keep"}
    assert any("no image carries" in each for each in found.document["warnings"])
    assert any("the audit is of the model corner" in each for each in found.document["warnings"])


def test_where_an_object_covers_the_place_nobody_knows_and_nothing_is_done(tmp_path):
    found = repair(corner(), Covering(), REPORT)
    assert [row["id"] for row in found.rows if row["carries"] is None] == names(Covering.covering)
    assert carriers(found) == names(each for each in TAGGED if each not in Covering.covering)
    assert {row["action"] for row in found.rows if row["carries"] is None} == {"keep"}
    assert any("nobody knows" in each for each in found.document["warnings"])
    assert found.document["classes"][0] | {"images": 8, "carry": 3, "unknown": 2, "mask": 3} == found.document["classes"][0]


def test_what_was_painted_over_is_carried_no_more_and_its_objects_stay(tmp_path):
    data, found = Some(), repair(corner(), Some(), REPORT)
    save_repair(found, tmp_path, ())
    clean = Repaired(data, read_repair(tmp_path / "repair.csv", data.ids))
    assert list(clean.ids) == data.ids
    for index in range(len(data)):
        before, after = data[index], clean[index]
        differs = (before.image != after.image).any(0)
        assert bool(differs.any()) is (index in TAGGED) and not bool((differs & before.masks[0]).any())
        assert not bool(differs[:20].any()) and not bool(differs[:, :20].any())
        assert torch.equal(before.semantic, after.semantic)
    assert not carriers(repair(corner(), clean, REPORT))


def test_dropping_leaves_the_others_and_keeps_of_each_class_some(tmp_path):
    data = Some()
    save_repair(repair(corner(), data, REPORT, action="drop"), tmp_path, ())
    left = Repaired(data, read_repair(tmp_path / "repair.csv", data.ids))
    assert list(left.ids) == names(index for index in range(16) if index not in TAGGED)
    assert torch.equal(left[1].image, data[3].image)
    every = Some(tagged=range(0, 16, 2))
    with pytest.raises(
        DataError, match="8 of 8 images of disc carry it; dropping keeps fewer than 10% of the class, so take --action mask"
    ):
        repair(corner(), every, REPORT, action="drop")


def test_after_weighing_carrying_says_nothing_of_the_class():
    found = repair(corner(), Some(), REPORT, action="weight")
    sums = {(own, carries): sum(row["weight"] for row in found.rows if (row["class"] == "disc", row["carries"]) == (own, carries))
            for own in (True, False) for carries in (True, False)}  # fmt: skip
    assert sum(sums.values()) == pytest.approx(16, abs=1e-4)
    for own in (True, False):
        for carries in (True, False):
            assert sums[own, carries] == pytest.approx(8 * (5 if carries else 11) / 16, abs=1e-4)
    assert [row["weight"] for row in found.rows if row["id"] == "shape-005"] == [8 * 5 / 16]
    with pytest.raises(DataError, match="images of any other class that carry one: 0, too few to stand for the 1 that would"):
        repair(corner(), Some(tagged=(0, 2)), REPORT, action="weight")
    with pytest.raises(DataError, match="images of disc that carry none: 0, too few to stand for the 4"):
        repair(corner(), Some(tagged=(*range(0, 16, 2), 5)), REPORT, action="weight")


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    def run(out: Path, **given: object) -> Repair:
        return repair(corner(), Some(), REPORT, batch_size=4, journal=out / "journal.jsonl", **given)

    save_repair(run(tmp_path / "a"), tmp_path / "a")
    lines = (tmp_path / "a" / "journal.jsonl").read_text().splitlines()
    cut = tmp_path / "b" / "journal.jsonl"
    cut.parent.mkdir()
    cut.write_text("\n".join(lines[:7]) + "\n" + lines[7][:20])  # killed while it wrote
    save_repair(run(tmp_path / "b", resume=True), tmp_path / "b")
    for name in ("repair.json", "repair.csv", "figure.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    kept = cut.read_bytes()
    assert run(tmp_path / "b", resume=True, action="weight").document["action"] == "weight" and cut.read_bytes() == kept
    with pytest.raises(PlanError, match="--resume"):
        run(tmp_path / "a")
    with pytest.raises(PlanError, match="other seed"):
        run(tmp_path / "a", resume=True, seed=1)


@pytest.mark.parametrize(("report", "words"), [
    ([], "not that of an audit"),
    ({"findings": []}, "not that of an audit"),
    (changed(REPORT, "spots", value=None), "not that of an audit"),
    (changed(REPORT, "spots", "classes", "disc", "place", "share", value="x"), "not that of an audit"),
    (changed(REPORT, "findings", 0, "verdict", value="undecided"), "says 'undecided' of an artefact"),
    (changed(REPORT, "findings", 0, "declared", value=True), "declared legitimate"),
    (changed(REPORT, "spots", "classes", "disc", "place", "share", value=0.4), "names no class"),
    (changed(REPORT, "spots", "classes", "disc", "place", "moved", "ci", value=[0.07, 1]), "names no class"),
    (changed(REPORT, "spots", "classes", "disc", "place", "xyxy", value=[0.5, 0.5, 0.4, 2]), "expected xyxy in shares"),
    (changed(REPORT, "spots", "classes", "disc", "place", "xyxy", value=[0, 1]), "expected xyxy in shares"),
    (changed(REPORT, "spots", "classes", "disc", "place", "moved", "value", value=float("nan")), "expected xyxy in shares"),
    (changed(REPORT, "spots", "classes", value={"cat": REPORT["spots"]["classes"]["disc"]}), "take the model that was audited"),
])  # fmt: skip
def test_a_report_that_is_none_or_names_nothing_is_one_line(report, words, tmp_path):
    with pytest.raises(DataError, match=words) as caught:
        repair(corner(), Some(), report, journal=tmp_path / "o" / "journal.jsonl")
    assert "\n" not in str(caught.value) and not (tmp_path / "o").exists()


def test_what_cannot_be_asked_is_one_line():
    with pytest.raises(XaiError, match="unknown action 'burn'"):
        repair(corner(), Some(), REPORT, action="burn")
    with pytest.raises(DataError, match="none is of another class than disc"):
        repair(corner(), Some(tagged=range(1, 16, 2)), REPORT)
    with pytest.raises(DataError, match="none is of another class"):
        repair(corner(), Some(broken=range(16)), REPORT)


def test_the_command_writes_the_list_and_says_what_it_cannot_do(tmp_path, capsys):
    tag, data = [0.64, 0.87, 0.98, 0.97], "scenes:train?n=16&shortcut=tag&rho=1&prevalence=1&others=0&seed=1"
    report = changed(REPORT, "spots", "classes", value={"arrow": changed(REPORT, "spots", "classes", "disc", "place", "xyxy", value=tag)
                                                        ["spots"]["classes"]["disc"]})  # fmt: skip
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "report.json").write_text(json.dumps(report))

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["repair", data, "--model", "unet-scenes-tag", "--audit", str(tmp_path / "audit"), *map(str, words)])
        return ended.value.code, *capsys.readouterr()

    status, printed, _ = run("--out", tmp_path / "out", "--json", "--limit", 6)
    document = json.loads(printed)
    assert status == 0 and document == json.loads((tmp_path / "out" / "repair.json").read_text())
    scenes = load_dataset(data)
    tagged = [scenes.ids[index] for index in range(6) if scenes.describe(index).tag]
    entries = read_repair(tmp_path / "out" / "repair.csv", scenes.ids)
    assert tagged and [id for id, each in entries.items() if each.boxes] == tagged
    for words, said in (
        (("--out", tmp_path / "out"), "--resume"),
        (("--out", tmp_path / "new", "--audit", tmp_path), "cannot be read"),
        (
            ("--out", tmp_path / "out", "--resume", "--limit", 6, "--action", "weight"),
            "images of any other class that carry one: 0, too few",
        ),
    ):
        status, printed, err = run(*words)
        assert (status, printed) == (2, "") and said in err.splitlines()[-1] and "Traceback" not in err, err
