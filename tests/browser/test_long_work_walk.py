"""Long work as a person meets it: started, left, come back to, stopped, gone on with, read; in a real browser with real processes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.apps.small_audit import leave
from tests.browser.walking import look, offered, settled, stage

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(1500)]

LONG = 900_000  # milliseconds, for what a process of its own computes with one thread


@pytest.fixture(autouse=True)
def patient(models: tuple[str, str]) -> None:
    if "unet-scenes" not in models:
        pytest.skip("the processes of jobs know the models of the zoo alone")


def visit(page: Page, address: str, name: str, **query: str) -> None:
    """As a link that somebody sent."""
    page.goto(f"{address}/{name}?{urlencode(query)}")
    expect(page.get_by_text(re.compile("^(Probe|Audit): "))).to_be_visible()
    settled(page)


def card(page: Page) -> Locator:
    return page.locator("[class*=st-key-job-]")


def test_a_probe_survives_a_reload_and_leads_to_single_images(page: Page, address: str, tmp_path: Path) -> None:
    visit(page, address, "probe", models="unet-scenes", on="scenes:test?n=12", probes="fog", n="12", relevance="4")
    look(page, tmp_path, "probe-ask")
    page.get_by_role("button", name="Start the probe").click()
    expect(card(page)).to_contain_text("unet-scenes on scenes:test?n=12")
    page.reload()
    expect(page.get_by_label("Run", exact=True).or_(card(page)).first).to_be_visible()  # it runs, or has ended meanwhile
    expect(page.get_by_label("Run", exact=True)).to_be_visible(timeout=LONG)
    expect(page.get_by_text("mIoU").first).to_be_visible()
    expect(page.locator("[data-testid=stVegaLiteChart]")).to_be_visible()
    settled(page)
    look(page, tmp_path, "probe-run")

    page.get_by_role("button", name="Change it live").first.click()
    expect(page.get_by_text("fog, severity 3")).to_be_visible()
    page.get_by_role("slider").press("ArrowRight")
    expect(page.get_by_text("fog, severity 4")).to_be_visible()
    expect(page).to_have_url(re.compile("degree=4"))
    look(page, tmp_path, "probe-live")
    page.get_by_role("link", name=re.compile("^Open test-.* unchanged$")).click()
    expect(stage(page)).to_be_visible()
    expect(page).to_have_url(re.compile("item="))


def test_an_audit_is_stopped_gone_on_with_and_read(page: Page, address: str, runs: Path, tmp_path: Path) -> None:
    visit(page, address, "audit", of="unet-scenes-tag", on="scenes:test?n=12&shortcut=tag&prevalence=1&others=0", n="12", explained="6")
    look(page, tmp_path, "audit-ask")
    page.get_by_role("button", name="Start the audit").click()
    expect(card(page)).to_contain_text(re.compile(r"[1-9]\d* of \d+ steps"), timeout=LONG)
    look(page, tmp_path, "audit-running")
    page.reload()
    expect(card(page)).to_contain_text("unet-scenes-tag", timeout=LONG)

    page.get_by_role("button", name="Cancel").click()
    expect(card(page)).to_contain_text("cancelled; what was done stays")
    done = len(list(runs.glob("audit-*/out/records/*.parquet")))
    assert done
    settled(page)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.get_by_label("Run", exact=True)).to_be_visible(timeout=LONG)
    expect(page.get_by_text("Would refute it").first).to_be_attached()
    look(page, tmp_path, "audit-findings")
    page.get_by_role("radio", name="Drops").or_(page.get_by_role("button", name="Drops")).first.click()
    expect(page.locator("[data-testid=stVegaLiteChart]")).to_be_visible()
    offered(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="report.html").click()
    waiting.value.save_as(tmp_path / "report.html")
    assert "default-src 'none'" in (tmp_path / "report.html").read_text()


def test_a_cluster_is_chosen_in_its_picture_and_pasted_by_hand(page: Page, address: str, runs: Path, tmp_path: Path) -> None:
    leave(runs / "left")
    visit(page, address, "audit", audit="Runs", audit_run="left", part="Clusters", **{"class": "arrow"})
    expect(page.get_by_text("decisions for arrow, suspicious")).to_be_visible()
    points = page.locator("[data-testid=stVegaLiteChart] .mark-symbol.role-mark path")
    expect(points.first).to_be_visible()
    look(page, tmp_path, "audit-clusters")
    page.wait_for_timeout(3000)  # the chart is drawn anew for the width that the page has now
    page.locator("[data-testid=stVegaLiteChart]").scroll_into_view_if_needed()
    place = points.first.bounding_box()
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(page.get_by_text("1 decision chosen in the picture")).to_be_visible()
    settled(page)
    expect(page.get_by_role("link", name="Inspect", exact=True)).to_have_count(2)  # in the navigation, and of the one member

    visit(page, address, "audit", audit="Runs", audit_run="left", part="Transplant")
    expect(page.get_by_text("One image shows what may happen")).to_be_visible()
    settled(page)
    look(page, tmp_path, "audit-transplant")
    before = page.get_by_alt_text(re.compile("^After")).get_attribute("src")
    page.get_by_label("Paste into", exact=True).click()
    page.get_by_role("option").nth(1).click()
    expect(page.get_by_alt_text(re.compile("^After"))).not_to_have_attribute("src", before)
