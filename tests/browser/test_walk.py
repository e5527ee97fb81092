"""One walk through the dashboard by clicking, drawing and typing, as a person would."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.walking import alt, base, choose, frame, offered, stage

pytestmark = pytest.mark.browser


def target(page: Page) -> Locator:
    return page.get_by_label("Target", exact=True)


def open_inspect(page: Page, address: str, **query: str) -> None:
    page.goto(address + "/?" + "&".join(f"{key}={value}" for key, value in query.items()))
    expect(stage(page)).to_be_visible()


def test_from_a_click_on_a_box_to_a_figure(page: Page, address: str, models: tuple[str, str], tmp_path: Path) -> None:
    open_inspect(page, address, model=models[0], method="saliency", least="0.1", item="2")
    choose(page, "Model", f"^{models[1]} ")
    boxes = stage(page).locator(".box")
    expect(boxes.nth(1)).to_be_visible()
    before = alt(page, "map-saliency")

    # the middle of the second box, which may lie in a smaller one
    place = boxes.nth(1).bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    named = re.match(r"x \d+, y \d+ · (\d+) ", stage(page).locator("xpath=..").locator(".place").inner_text())
    page.mouse.down()
    page.mouse.up()
    expect(target(page)).to_have_value(f"box:{named[1]}")
    expect(stage(page).locator(".box.chosen")).to_contain_text(f"{named[1]} ")
    assert f"map for box:{named[1]}:" in alt(page, "map-saliency")

    # the same box by the list, then one of its edges
    choose(page, "Box", "^1 ")
    expect(target(page)).to_have_value("box:1")
    choose(page, "Explain its", "^left$")
    expect(target(page)).to_have_value("box:1:left")
    expect(base(page, "map-saliency")).to_have_attribute("alt", re.compile("box:1:left"))
    assert alt(page, "map-saliency") != before

    # a box around something that was missed
    place = frame(page)
    page.mouse.move(place["x"] + 0.25 * place["width"], place["y"] + 0.25 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + 0.6 * place["width"], place["y"] + 0.7 * place["height"], steps=4)
    page.mouse.up()
    expect(target(page)).to_have_value(re.compile(r"^box:(23\.9|24|24\.1),(23\.9|24|24\.1),57\.\d,67\.\d:"))

    offered(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Figure PDF").click()
    waiting.value.save_as(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_from_a_click_on_a_pixel_to_a_view_that_can_be_shared(page: Page, address: str, models: tuple[str, str]) -> None:
    open_inspect(page, address, model=models[0], method="saliency", item="2", set="occlusion.window=32")
    place = frame(page)
    page.mouse.click(place["x"] + place["width"] * 30.5 / 96, place["y"] + place["height"] * 40.5 / 96)
    expect(target(page)).to_have_value("pixel:30,40")
    expect(page.get_by_label("x", exact=True)).to_have_value("30")
    assert "pixel:30,40" in alt(page, "map-saliency")

    # with the keyboard, from the marked point: two to the right, one down
    page.mouse.move(0, 0)
    stage(page).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(target(page)).to_have_value("pixel:32,41")
    assert "pixel:32,41" in alt(page, "map-saliency")
    page.get_by_label("y", exact=True).fill("50")
    page.get_by_label("y", exact=True).press("Enter")
    expect(target(page)).to_have_value("pixel:32,50")

    page.locator(".st-key-picture .chip").first.click()
    expect(target(page)).to_have_value(re.compile("^region:"))
    page.get_by_label("Methods", exact=True).press_sequentially("occlusion")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(stage(page, "map-occlusion")).to_be_visible()

    # a click on a map is a click on the picture
    place = frame(page, "map-occlusion")
    page.mouse.click(place["x"] + place["width"] * 10.5 / 96, place["y"] + place["height"] * 20.5 / 96)
    expect(target(page)).to_have_value("pixel:10,20")
    expect(base(page, "map-occlusion")).to_have_attribute("alt", re.compile("pixel:10,20"))

    shared, here = alt(page, "map-occlusion"), page.url
    assert parse_qs(urlsplit(here).query)["target"] == ["pixel:10,20"]
    page.goto(here)
    expect(base(page, "map-occlusion")).to_have_attribute("alt", shared)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (820, 1180)])
def test_fits_the_screen(page: Page, address: str, models: tuple[str, str], scheme: str, width: int, height: int, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    open_inspect(page, address, model=models[1], method="saliency", least="0.1")
    expect(stage(page, "map-saliency")).to_be_visible()
    page.screenshot(path=tmp_path / f"inspect-{scheme}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for key in ("picture", "map-saliency"):
        place = stage(page, key).bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= width and place["y"] + place["height"] <= height
    background = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 380) == (scheme == "light")
