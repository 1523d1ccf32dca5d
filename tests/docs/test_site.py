"""The site builds without a warning, holds together, and needs no network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from docs_site import mathml
from mkdocs.exceptions import PluginError

from detkd.losses import LOSSES

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"<(?:script|img|iframe|source)[^>]*src=\"(?:https?:)?//|<link(?![^>]*canonical)[^>]*href=\"(?:https?:)?//"
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not fetched.search(page.read_text(encoding="utf-8")), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_formulas_are_drawn(site: Path) -> None:
    for name in ("methods.html", "segmentation.html", "api/losses.html"):
        page = (site / name).read_text(encoding="utf-8")
        assert page.count("<math") > 5, name
        assert "arithmatex" not in page, name
        assert ":math:" not in page, name
        assert ".. math::" not in page, name


def test_a_formula_that_cannot_be_drawn_is_refused() -> None:
    assert "<mfrac>" in mathml(r"\frac{a}{b}", block=True)
    with pytest.raises(PluginError, match="nonsense"):
        mathml(r"\nonsense{a}", block=False)


def test_every_loss_is_in_the_reference(site: Path) -> None:
    page = (site / "api" / "losses.html").read_text(encoding="utf-8")
    for name, module in LOSSES.items():
        assert f'id="detkd.losses.{name}.{module.__name__}"' in page, name
    assert ":func:" not in page
    assert ":class:" not in page


def test_the_start_page_is_the_readme_with_its_links_moved(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="results.html"' in page
    assert 'href="examples/toy_detector.py"' in page
    assert (site / "examples" / "toy_detector.py").is_file()
    assert (site / "demo.jpg").is_file()
