"""The acceptance table of benchmarks/lrp.md, held: every model of the zoo, every family of torchvision and smp."""

from __future__ import annotations

import pytest

from benchmarks.lrp_acceptance import BOUNDS, Row, measure, networks
from xaitools.errors import MethodError

REFUSED = {"smp:MAnet": "relevance cannot pass through torch.Tensor.mul"}  # attention
QUICK = ("unet-scenes", "yolo-scenes")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "text", [pytest.param(text, id=text.partition("?")[0], marks=[] if text in QUICK else pytest.mark.long) for text in networks()]
)
def test_relevance_is_right(text: str) -> None:
    family = text.partition("?")[0]
    if family in REFUSED:
        with pytest.raises(MethodError, match=REFUSED[family]):
            measure(text)
        return
    row: Row = measure(text)
    for name, bound in BOUNDS.items():
        assert getattr(row, name) <= bound, name
    assert row.zplus > 0.1, "z+ is not gradient x input"
    assert row.head > 1e-3, "the map does not depend on the last layer's weights"
    assert row.same_state
