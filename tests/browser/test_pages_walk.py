"""A walk through Data, Compare and About, and through what Inspect has beside its maps, by clicking and typing."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.walking import alt, base, look, offered, settled, stage

pytestmark = [pytest.mark.browser, pytest.mark.long]


def go(page: Page, title: str) -> None:
    """To another page by the navigation."""
    page.get_by_role("link", name=title, exact=True).first.click()
    expect(page.get_by_role("heading", name=re.compile(f"^{title}:"))).to_be_visible()
    settled(page)


def test_from_a_missed_object_to_its_reason(page: Page, address: str, models: tuple[str, str]) -> None:
    page.goto(f"{address}/?model={models[1]}&method=saliency&data=scenes:val")
    expect(stage(page)).to_be_visible()
    go(page, "Data")
    expect(page.get_by_label("Pictures", exact=True)).to_have_value("scenes:val")
    tiles = page.locator(".st-key-gallery .tile")
    expect(tiles).to_have_count(12)
    expect(page.get_by_label("Model", exact=True)).to_have_value(re.compile(f"^{models[1]} "))  # it stays what it was
    page.locator(".st-key-count").get_by_text("48", exact=True).click()
    expect(tiles).to_have_count(48)
    page.get_by_role("button", name="missed").click()
    settled(page)
    expect(tiles.first.locator(".wrong")).to_contain_text("missed")
    expect(tiles).not_to_have_count(48)
    assert tiles.count() > 0
    item = tiles.first.locator(".name").inner_text().partition(" ")[0]
    tiles.first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^Inspect:"))).to_be_visible()
    expect(page.get_by_label(re.compile("^Item, 0 to"))).to_have_value(item)
    if item != "0":
        expect(page).to_have_url(re.compile(f"item={item}(&|$)"))
    expect(stage(page, "map-saliency")).to_be_visible()

    # a page that was left keeps its work
    go(page, "Data")
    expect(page.get_by_role("button", name="missed")).to_have_attribute("aria-pressed", "true")
    expect(tiles.first.locator(".name")).to_contain_text(f"{item} ·")


def test_a_scene_is_drawn_factor_by_factor(page: Page, address: str, models: tuple[str, str]) -> None:
    page.goto(f"{address}/data?model={models[0]}&view=Draw+scenes")
    expect(stage(page, "scene-as-chosen")).to_be_visible()
    chosen = base(page, "scene-as-chosen")
    expect(chosen).to_have_attribute("src", base(page, "scene-as-drawn").get_attribute("src"))
    for name, second in (("Background", "meadow"), ("Light", "sunset")):
        before = chosen.get_attribute("src")
        thumb = page.get_by_role("slider", name=name)
        thumb.focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        expect(page).to_have_url(re.compile(f"draw_{name.lower()}={second}"))
        expect(chosen).not_to_have_attribute("src", before)
        settled(page)
    before, seed = chosen.get_attribute("src"), page.get_by_label("Seed", exact=True)
    seed.fill("7")
    seed.press("Enter")
    expect(page).to_have_url(re.compile("seed=7"))
    expect(chosen).not_to_have_attribute("src", before)
    shared, here = alt(page, "scene-as-chosen"), page.url
    page.goto(here)
    expect(chosen).to_have_attribute("alt", shared)


def test_models_side_by_side(page: Page, address: str, models: tuple[str, str]) -> None:
    page.goto(f"{address}/compare?compared={models[0]}&compared={models[1]}&map=saliency")
    expect(stage(page, "right-map-saliency")).to_be_visible()
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
    assert "Accuracy against operations of one image" in (page.get_by_test_id("stImage").locator("img").first.get_attribute("alt") or "")
    before = alt(page, "left-map-saliency")
    page.get_by_label(re.compile("^Item, 0 to")).fill("3")
    page.get_by_label(re.compile("^Item, 0 to")).press("Enter")
    expect(page).to_have_url(re.compile("item=3"))
    expect(base(page, "left-map-saliency")).not_to_have_attribute("alt", before)
    offered(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Figure PDF").click()
    assert Path(waiting.value.path()).read_bytes().startswith(b"%PDF")


def test_what_a_method_means(page: Page, address: str) -> None:
    page.goto(f"{address}/about")
    find = page.get_by_label("Find")
    find.fill("deconvnet")
    find.press("Enter")
    expect(page).to_have_url(re.compile("find=deconvnet"))
    settled(page)
    expect(page.get_by_text("feature-projection", exact=True)).to_be_visible()
    expect(page.get_by_text("saliency", exact=True)).to_have_count(0)


def test_strings_and_files_of_strangers(page: Page, address: str, models: tuple[str, str]) -> None:
    page.goto(f"{address}/?model={models[0]}&method=saliency&data=upload")
    warning = page.get_by_test_id("stAlertContentWarning")
    buffer = io.BytesIO()
    Image.effect_noise((90, 70), 60).convert("RGB").save(buffer, "png")
    for name, content in (
        ("cut.png", buffer.getvalue()[:3000]),
        ("<img src=x onerror=alert(1)>.png", b"<html><script>alert(1)</script></html>"),
    ):
        page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
        expect(warning).to_contain_text(name)
        expect(warning).to_have_count(1)
    page.locator("input[type=file]").set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    expect(page).to_have_url(re.compile("picture=[0-9a-f]{64}"))
    shared, here = alt(page), page.url
    other = page.context.new_page()
    other.goto(here)
    expect(base(other)).to_have_attribute("alt", shared)
    other.close()
    for text, said in (("python:os:getcwd", "--allow-python"), ("smp:Unet?classes=2&weights=/etc/passwd", "no file")):
        field = page.get_by_label("Model", exact=True)
        field.fill(text)
        field.press("Enter")
        expect(warning).to_contain_text(said)
    field = page.get_by_label("Model", exact=True)
    field.fill("torchvision:lraspp_mobilenet_v3_large?weights=none&classes=sky,road")
    field.press("Enter")
    expect(warning).to_have_count(0)
    expect(stage(page, "map-saliency")).to_be_visible()


def test_a_box_moves_while_its_reason_is_deleted_and_its_way_is_shown(page: Page, address: str, models: tuple[str, str]) -> None:
    page.goto(f"{address}/?model={models[1]}&method=saliency&item=2&least=0.1")
    expect(stage(page, "map-saliency")).to_be_visible()
    page.get_by_text("Delete the strongest pixels").click()
    expect(stage(page, "rest")).to_be_visible()
    before = base(page, "rest").get_attribute("src")
    page.get_by_role("slider", name="Pixels deleted").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("share=20"))
    expect(base(page, "rest")).not_to_have_attribute("src", before)
    page.get_by_text("How it came to its boxes").click()
    boxes = stage(page, "step-picture").locator(".box")
    expect(stage(page, "step-picture")).to_be_visible()
    final = boxes.count()
    page.locator(".st-key-step").get_by_text("anchors").click()
    expect(boxes).not_to_have_count(final)
    assert boxes.count() > final


PAGES = {
    "inspect": "/?method=lrp&delete=true&share=20&steps=true&target=box:0",
    "data": "/data?count=12",
    "draw": "/data?view=Draw+scenes&draw_light=neon",
    "compare": "/compare?map=saliency",
    "about": "/about?find=",
}


def test_fits_the_screen(page: Page, address: str, models: tuple[str, str], tmp_path: Path) -> None:
    for name, where in PAGES.items():
        page.goto(f"{address}{where}&model={models[1]}&compared={models[0]}&compared={models[1]}")
        expect(page.get_by_role("heading").first).to_be_visible()
        settled(page)
        look(page, tmp_path, name, height=2400)  # all that one would scroll to
