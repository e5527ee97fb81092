"""A sweep that is broken off goes on where it was, with the same map; what belongs to another question is not taken."""

import pytest
import torch

import xaitools as xt
from xaitools.attribution import kept
from xaitools.attribution.base import explain_many
from xaitools.types import Attribution

WINDOWS = {"window": 24, "stride": 12}
CASES = [
    ("occlusion", {"incremental": False, **WINDOWS}),
    ("occlusion", {"incremental": True, **WINDOWS}),
    ("occlusion", {"coarse_to_fine": 2, **WINDOWS}),
    ("occlusion-drise", WINDOWS),
    ("drise", {"masks": 80, "stability": 1.0}),
]


@pytest.fixture(scope="module")
def scene():
    return xt.load_dataset("scenes:test?n=1")[0].image


def ask(model, image, method, params, folder, stop: int | None = None) -> tuple[list[Attribution], list[int]]:
    """The answer, and how far each call of progress was; Ctrl-C after ``stop`` calls."""
    steps: list[int] = []

    def progress(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == stop:
            raise KeyboardInterrupt

    found = explain_many(model, image, ["top"], method, unfinished=folder, progress=progress, **params, batch_size=8)
    return found, steps


@pytest.mark.parametrize(("method", "params"), CASES, ids=lambda each: each if isinstance(each, str) else "-".join(each))
def test_a_sweep_goes_on_where_it_was_broken_off(method, params, scene, tmp_path):
    model = xt.load_model("yolo-scenes")
    (whole,), _ = ask(model, scene, method, params, None)
    with pytest.raises(KeyboardInterrupt):
        ask(model, scene, method, params, tmp_path, stop=3)
    assert len(kept.unfinished([tmp_path])) == 1
    looked = []
    predict, table = model.predict, model.score_table
    model.predict = lambda images: looked.append(len(images)) or predict(images)
    model.score_table = lambda images, some: looked.append(len(images)) or table(images, some)
    try:
        (again,), _ = ask(model, scene, method, params, tmp_path)
        rest = len(looked)
        looked.clear()
        ask(model, scene, method, params, None)
    finally:
        del model.predict, model.score_table
    assert torch.equal(again.values, whole.values) and again.params == whole.params and again.notes == whole.notes
    if not params.get("incremental", method != "occlusion"):  # else the engine looks at nothing but the clean image
        assert len(looked) - rest in (2, 3)


def test_another_question_or_another_model_starts_anew(scene, tmp_path):
    model, other = xt.load_model("yolo-scenes"), xt.load_model("yolo-scenes")
    with torch.no_grad():
        for each in other.module.parameters():
            each.mul_(1.01)
    with pytest.raises(KeyboardInterrupt):
        ask(model, scene, "drise", {"masks": 80}, tmp_path, stop=3)
    for asked, image, params in ((model, scene, {"masks": 88}), (model, scene.flip(-1), {"masks": 80}), (other, scene, {"masks": 80})):
        (plain,), _ = ask(asked, image, "drise", params, None)
        (found,), _ = ask(asked, image, "drise", params, tmp_path)
        assert torch.equal(found.values, plain.values)


def test_a_spoilt_file_and_a_full_disk_stop_nothing(scene, tmp_path, monkeypatch):
    model = xt.load_model("yolo-scenes")
    with pytest.raises(KeyboardInterrupt):
        ask(model, scene, "drise", {"masks": 80}, tmp_path, stop=3)
    (path,) = kept.unfinished([tmp_path])
    path.write_bytes(path.read_bytes()[:-40])
    (plain,), _ = ask(model, scene, "drise", {"masks": 80}, None)
    monkeypatch.setattr(kept, "PAUSE", 0.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_bytes", full)
    (found,), _ = ask(model, scene, "drise", {"masks": 80}, tmp_path)
    assert torch.equal(found.values, plain.values)


def test_what_is_due_is_written_on_the_way(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "PAUSE", 0.0)
    monkeypatch.setattr(kept, "SHARE", 0)
    written = []
    write = kept.write_bytes
    monkeypatch.setattr(kept, "write_bytes", lambda path, data: written.append(path) or write(path, data))
    ask(xt.load_model("yolo-scenes"), scene, "occlusion", {"incremental": False, **WINDOWS}, tmp_path)
    assert len(written) >= 6 and not list(tmp_path.glob("*.draft"))
