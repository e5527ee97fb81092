"""The two pictures of the dashboard that the README shows, made by walking there.

``XAITOOLS_FIGURES=examples/figures pytest -m browser tests/browser/test_screenshots.py`` makes them again; without that variable they
are only looked at.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.walking import alt, base, frame, settled, stage
from xaitools import zoo
from xaitools.locations import data_root

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(1500)]

MOST = 200_000  # bytes
SIZE = {"width": 1280, "height": 775}
LONG = 900_000  # milliseconds, for a probe of two models with one thread


def keep(page: Page, name: str, tmp_path: Path) -> None:
    """What the window shows, as WebP, in the folder of the figures or a passing one."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_timeout(1500)  # charts are drawn anew, a scroll ends
    path = Path(os.environ.get("XAITOOLS_FIGURES", tmp_path)) / f"dashboard-{name}.webp"
    Image.open(io.BytesIO(page.screenshot())).save(path, quality=88, method=6)
    assert path.stat().st_size < MOST


def test_a_blood_cell_is_explained(page: Page, address: str, tmp_path: Path) -> None:
    if not (data_root() / "bccd").is_dir() or "faster-rcnn-bccd" not in zoo.names():
        pytest.skip("the picture shows BCCD; set XAITOOLS_DATA")
    page.set_viewport_size(SIZE)
    query = {"model": "faster-rcnn-bccd", "data": "voc:bccd#test", "item": 1, "method": "lrp", "target": "box:4"}
    page.goto(f"{address}/?{urlencode(query)}")
    expect(stage(page, "map-lrp")).to_be_visible()
    settled(page)
    white = stage(page).locator(".box", has_text="WBC")  # its middle lies in no smaller box
    place = white.bounding_box()
    assert frame(page)["y"] > 0
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(base(page, "map-lrp")).to_have_attribute("alt", re.compile("map for box:0:"))
    settled(page)
    page.get_by_label("Methods", exact=True).press_sequentially("occlusion")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert "map for box:0:" in alt(page, "map-occlusion")
    keep(page, "inspect", tmp_path)


def test_an_honest_model_beside_its_cheating_twin(page: Page, address: str, models: tuple[str, str], tmp_path: Path) -> None:
    twins = ("unet-scenes", "unet-scenes-background")
    if not set(twins) <= set(zoo.names()) or models[0] not in twins:
        pytest.skip("the twins are not in the zoo")
    page.set_viewport_size(SIZE)
    asked = {"models": twins, "on": "scenes:test?n=60", "probes": ["background", "texture", "domain"], "n": 60, "relevance": 0}
    page.goto(f"{address}/probe?{urlencode(asked, doseq=True)}")
    page.get_by_role("button", name="Start the probe").click()
    expect(page.get_by_label("Run", exact=True)).to_be_visible(timeout=LONG)
    expect(page.locator("[data-testid=stVegaLiteChart]")).to_be_visible()
    expect(page.get_by_text("unet-scenes-background").first).to_be_visible()
    settled(page)
    keep(page, "probe", tmp_path)
