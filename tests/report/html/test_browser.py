"""The pages in a browser, without network: drawn, movable, on a phone, in the dark, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detkd.report.html.report import write_report
from tests.browser import MARKS, PHONE, watch
from tests.report.html.folders import GRID, write_classifier, write_comparison, write_grid, write_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

pytestmark = MARKS


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    writers = {"run": write_run, "comparison": write_comparison, "grid": write_grid, "classifier": write_classifier}
    return {name: write_report(write(root / name)) for name, write in writers.items()}


@pytest.fixture
def open_page(browser: Browser, pages: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """Opens a page by its name; the test fails if it says an error, or asks for anything but itself."""
    faults: list[str] = []
    contexts = []

    def load(name: str, *, width: int = 1200, **how: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **how)
        contexts.append(context)
        page = context.new_page()
        watch(page, faults)
        page.goto(pages[name].as_uri())
        return page

    yield load
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("name", ["run", "comparison", "classifier"])
def test_a_page_loads_without_a_word_and_every_plot_has_marks_to_be_seen(open_page: Callable[..., Page], name: str) -> None:
    page = open_page(name)
    assert page.evaluate("window.broken") is None
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    drawn = page.evaluate(
        """[...document.querySelectorAll('svg.plot')].map(plot => [...plot.querySelectorAll('.mark')].filter(mark => {
            const box = mark.getBoundingClientRect(), look = getComputedStyle(mark);
            return box.width + box.height > 1 && (look.fill !== 'none' || look.stroke !== 'none');
        }).length)"""
    )
    assert len(drawn) > 5
    assert all(drawn)
    broken = page.evaluate("[...document.images].filter(one => !one.complete || !one.naturalWidth).length")
    assert broken == 0


def test_the_divider_follows_the_pointer_and_the_keys(open_page: Callable[..., Page]) -> None:
    page = open_page("run")
    frame = page.locator(".live .frame").first
    frame.scroll_into_view_if_needed()
    place = frame.bounding_box()
    assert place is not None

    def at() -> float:
        box = frame.locator(".divider").bounding_box()
        assert box is not None
        return (box["x"] + box["width"] / 2 - place["x"]) / place["width"]

    assert at() == pytest.approx(0.5, abs=0.01)
    page.mouse.move(place["x"] + place["width"] * 0.5, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.2, place["y"] + place["height"] / 2, steps=4)
    page.mouse.up()
    assert at() == pytest.approx(0.2, abs=0.02)
    clip = frame.locator("figure.right").evaluate("one => getComputedStyle(one).clipPath")
    assert float(clip.split()[-1].rstrip("%)")) == pytest.approx(20, abs=2)
    before = at()
    frame.locator("input").press("ArrowRight")
    assert at() == pytest.approx(before + 0.005, abs=0.002)
    frame.locator("input").press("End")
    assert at() == pytest.approx(1, abs=0.01)


def test_the_views_to_compare_can_be_chosen(open_page: Callable[..., Page]) -> None:
    page = open_page("run")
    box = page.locator(".compare").first
    seen = "one => [...one.querySelectorAll('figure')].filter(f => f.offsetParent).map(f => f.dataset.role)"
    assert box.evaluate(seen) == ["teacher", "student"]
    box.locator("select").first.select_option("ground truth")
    assert box.evaluate(seen) == ["ground truth", "student"]
    assert page.locator(".compare").nth(2).locator("select").count() == 0  # two views leave no choice


@pytest.mark.parametrize("name", ["run", "comparison", "grid", "classifier"])
def test_a_phone_needs_no_scrolling_to_the_side(open_page: Callable[..., Page], name: str) -> None:
    page = open_page(name, width=PHONE, has_touch=True, is_mobile=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    wide = "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    assert page.evaluate(wide) == 0
    letters = page.evaluate("[...document.querySelectorAll('svg.plot')].map(one => 11 * one.getScreenCTM().a)")
    assert min(letters) > 9  # pixels


def test_recipes_of_a_grid_are_told_apart_and_break_at_separators(open_page: Callable[..., Page]) -> None:
    page = open_page("grid")
    labels = page.evaluate(
        "[...document.querySelectorAll('#gains svg.plot .label')].map(one => [one.textContent, one.getBBox().x])"
    )
    assert labels
    assert {label for label, _ in labels} == set(GRID)
    assert min(x for _, x in labels) >= 0
    # A span that is broken has a rectangle for each line.
    lines = page.evaluate("[...document.querySelectorAll('#results .part')].map(one => one.getClientRects().length)")
    assert set(lines) == {1}


def test_the_dark_is_dark_and_still_has_contrast(open_page: Callable[..., Page]) -> None:
    light = """one => {
        const part = getComputedStyle(one)[%r].match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    }"""
    for scheme in ("light", "dark"):
        page = open_page("comparison", color_scheme=scheme)
        card = page.locator("section").first.evaluate(light % "backgroundColor")
        assert (card < 0.05) == (scheme == "dark")
        colours = {name: page.locator(f".dot.{name}").first.evaluate(light % "color") for name in ("teacher", "series-1")}
        colours |= {"text": page.locator("h2").first.evaluate(light % "color")}
        for name, own in colours.items():
            high, low = max(own, card), min(own, card)
            assert (high + 0.05) / (low + 0.05) > (4.5 if name == "text" else 3), (scheme, name)  # as WCAG asks for


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_paper_shows_every_view_and_no_controls(open_page: Callable[..., Page], name: str) -> None:
    page = open_page(name, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("[...document.querySelectorAll('.frame figure')].every(one => one.offsetParent)")
    assert not page.evaluate(
        "[...document.querySelectorAll('.controls, .divider, .live input')].some(one => one.offsetParent)"
    )
    assert page.pdf(format="A4").startswith(b"%PDF")
