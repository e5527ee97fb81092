"""Every probe on pictures of the data sets: what comes out can be scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from xaitools.data import load_dataset
from xaitools.errors import DataError
from xaitools.probes import PROBES, Context, change
from xaitools.types import IGNORE, Sample

SETS = {"bccd": "voc:{}/bccd#test", "camvid": "camvid:{}/camvid#test", "penn-fudan": "penn-fudan:{}/penn-fudan#test",
        "coco-mini": "coco:{}/coco-mini#val2017", "voc-mini": "voc:{}/voc-mini#val"}  # fmt: skip
PICTURES = (3, 7)
"""The second for probes that found nothing to do in the first."""


OTHER = {"cooccurrence.remove", "cooccurrence.paste", "swap", "texture.gap", "mixed_rand", "mixed_next", "gap", "colour_other",
         "domain.gap", "light_other", "light.gap", "light_agreed_other", "light_agreed.gap",
         "pose_other", "pose.gap", "surface_same", "surface_other", "scored_subject"}  # fmt: skip
MISSING = {"penn-fudan": OTHER, "coco-mini": {"surface_same", "pose_same"}}
"""Penn-Fudan has one class alone; of its many classes coco-mini has few images each."""


def broken(before: Sample, after: Sample, classes: int) -> Iterator[str]:
    height, width = before.image.shape[-2:]
    if after.image.shape != before.image.shape or float(after.image.min()) < 0 or float(after.image.max()) > 1:
        yield "image"
    if after.semantic is not None:
        if after.semantic.shape != (height, width) or after.semantic.dtype != torch.int64:
            yield "map"
        elif not set(after.semantic.unique().tolist()) <= {*range(classes), IGNORE}:
            yield "classes of the map"
    if after.boxes is None:
        return
    rows = {name: getattr(after, name) for name in ("labels", "masks", "ignore")}
    yield from (name for name, value in rows.items() if value is not None and len(value) != len(after.boxes))
    x1, y1, x2, y2 = after.boxes.unbind(1)
    if not bool(((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x2 > x1) & (y2 > y1)).all()):
        yield "boxes"


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_what_comes_out_can_be_scored(name: str, data_root: Path) -> None:
    where = Context(load_dataset(SETS[name].format(data_root)))
    done = dict.fromkeys((name for name, probe in PROBES.items() if not probe.members and not probe.needs & {"gradients", "stimuli"}), 0)
    for index in PICTURES:
        before = where.dataset[index]
        for probe in (probe for probe, count in done.items() if not count):
            entry = PROBES[probe]
            params = {"by": "truth"} if "by" in entry.defaults else {"region": "0,0,0.2,0.2"} if probe == "artifact.remove" else {}
            (after,) = change(probe, [before], entry.severity(3), where, params=params)
            if isinstance(after, DataError):
                continue
            assert isinstance(after, Sample) and not list(broken(before, after, len(where.dataset.semantic_classes))), probe
            done[probe] += 1
    missing = {probe for probe, count in done.items() if not count}
    assert missing <= MISSING.get(name, set())
