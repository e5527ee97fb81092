"""The shortest walk: open the page, click into the picture, see the map of what was clicked, take the figure home."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.walking import base, frame, offered, settled, stage

pytestmark = pytest.mark.browser


def test_from_the_first_page_to_a_figure(page: Page, address: str, models: tuple[str, str], tmp_path: Path) -> None:
    page.goto(f"{address}/?model={models[0]}&method=saliency&item=2")
    expect(stage(page)).to_be_visible()
    expect(stage(page, "map-saliency")).to_be_visible()
    settled(page)

    place = frame(page)
    page.mouse.click(place["x"] + place["width"] * 0.3, place["y"] + place["height"] * 0.4)
    target = page.get_by_label("Target", exact=True)
    expect(target).to_have_value(re.compile(r"^pixel:(28|29),(38|39)$"))
    expect(page).to_have_url(re.compile("target=pixel"))
    map_of_pixel = base(page, "map-saliency")
    expect(map_of_pixel).to_have_attribute("alt", re.compile(re.escape(target.input_value())))

    offered(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Figure PNG").click()
    path = tmp_path / "figure.png"
    download.value.save_as(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    expect(page.get_by_test_id("stException")).to_have_count(0)
