"""The built site, opened from the disk in Chromium: it asks for nothing else, is searched, and fits a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import MARKS, PHONE, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = MARKS


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a phone's width; the test fails if it says an error, or asks for anything that is not on the disk."""
    faults: list[str] = []
    opened = browser.new_page(viewport={"width": PHONE, "height": 800})
    watch(opened, faults)
    yield opened
    opened.close()
    assert faults == []


def test_no_page_is_wider_than_a_phone(site: Path, page: Page) -> None:
    pages = sorted(file for file in site.rglob("*.html") if file.name != "404.html")  # which only a server shows
    assert len(pages) > 15
    for file in pages:
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE, file.name


def test_the_search_finds_a_key_without_a_server(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator("label.md-header__button[for=__search]").click()
    page.locator("input[name=query]").press_sequentially("gradient_ratio")
    found = page.locator(".md-search-result__item a[href*='distillation.html']").first
    found.wait_for(state="visible", timeout=30_000)


def test_formulas_have_an_extent(site: Path, page: Page) -> None:
    page.goto((site / "methods.html").as_uri())
    sizes = page.eval_on_selector_all("math", "drawn => drawn.map(one => one.getBoundingClientRect().height)")
    assert len(sizes) > 30
    assert min(sizes) > 5  # pixels
