"""The same walk on photographs: click a segment, a box or an instance of a real data set and get the map of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.browser.walking import alt, base, choose, frame, look, settled, stage
from xaitools import zoo
from xaitools.locations import data_root

pytestmark = [pytest.mark.browser, pytest.mark.long]


@dataclass(frozen=True)
class Photographs:
    """folder   in the data folder
    model    of the zoo
    data     as the page has it
    unit     what a click on a segment means; None for boxes
    part     what of the box is then explained; None for its class score
    target   what the address says then
    """

    folder: str
    model: str
    data: str
    unit: str | None
    part: str | None
    target: str


REAL = [
    Photographs("camvid", "unet-camvid", "camvid:camvid#test", "segment", None, r"region:\w+"),
    Photographs("bccd", "faster-rcnn-bccd", "voc:bccd#test", None, "left", r"box:\d+:left"),
    Photographs("penn-fudan", "mask-rcnn-penn-fudan", "penn-fudan:penn-fudan#test", None, "mask", r"mask:\d+"),
]


@pytest.mark.parametrize("real", REAL, ids=lambda real: real.folder)
def test_from_a_photograph_to_the_reason(page: Page, address: str, real: Photographs, tmp_path: Path) -> None:
    if not (data_root() / real.folder).is_dir():
        pytest.skip(f"no {real.folder} in the data folder; set XAITOOLS_DATA")
    if real.model not in zoo.names():
        pytest.skip(f"{real.model} is not in the zoo")
    page.goto(f"{address}/?{urlencode({'model': real.model, 'data': real.data, 'item': 3, 'method': ['lrp', 'saliency']}, doseq=True)}")
    for method in ("lrp", "saliency"):
        expect(stage(page, f"map-{method}")).to_be_visible()
    before, target = alt(page, "map-lrp"), page.get_by_label("Target", exact=True)

    if real.unit:
        page.locator(".st-key-click").get_by_text(real.unit, exact=True).click()
        expect(page).to_have_url(re.compile(f"click={real.unit}"))
        settled(page)
        place = frame(page)
        page.mouse.click(place["x"] + 0.5 * place["width"], place["y"] + 0.9 * place["height"])
    else:
        # the middle of a box that is not explained yet; a smaller one may lie in it
        place = stage(page).locator(".box:not(.chosen)").first.bounding_box()
        page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        expect(page).to_have_url(re.compile(r"target=box%3A\d+|target=box:\d+"))
        expect(target).to_have_value(re.compile(r"^box:\d+$"))
        settled(page)
        choose(page, "Explain its", f"^{real.part}$")
    expect(target).to_have_value(re.compile(f"^{real.target}$"))
    for method in ("lrp", "saliency"):
        expect(base(page, f"map-{method}")).to_have_attribute("alt", re.compile(f"map for {re.escape(target.input_value())}:"))
    assert alt(page, "map-lrp") != before
    look(page, tmp_path, real.folder, height=1600)
