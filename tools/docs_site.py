"""Hooks of the documentation's build, see mkdocs.yml.

The pages are written to be read in the repository. For the site, the README becomes the start page, links that lead out of
docs/ find a copy of their file, and formulas become MathML, which browsers draw by themselves: a script that draws them
would have to be fetched or shipped, with its fonts.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
START = "index.md"
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)\s#]+)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the start page, and what pages link to outside of docs/."""
    files.append(File.generated(config, START, content=(ROOT / "README.md").read_text(encoding="utf-8")))
    for page in [file for file in files if file.is_documentation_page()]:
        for target in LINK.findall(page.content_string):
            place = _place(page.src_uri, target)
            if not place.startswith("docs/") and (ROOT / place).is_file() and place not in files.src_uris:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links to where their files lie on the site."""

    def moved(link: re.Match[str]) -> str:
        place = _place(page.file.src_uri, link[1]).removeprefix("docs/")
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"]({posixpath.relpath(place, start)}" if place in files.src_uris else link[0]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the formulas of a page, those of docstrings among them."""
    return FORMULA.sub(lambda found: mathml(found[2], block=found[1] == "div"), html)


def mathml(formula: str, *, block: bool) -> str:
    r"""MathML of a formula in LaTeX.

    Args:
        formula: As it stands in HTML, without its delimiters.
        block: Whether it stands by itself.

    Raises:
        PluginError: If a command is not known.
    """
    known = html.unescape(formula).replace(r"\big\|", r"\|").replace(r"\|", r"\Vert ").replace(r"\arg", r"\mathrm{arg} \,")
    drawn: str = convert(known, display="block" if block else "inline")
    if "\\" in drawn:
        raise PluginError(f"Expected a formula of commands that latex2mathml knows, but got {formula!r}.")
    return drawn


def _place(page: str, target: str) -> str:
    """Where a page's link leads, from the root of the repository."""
    folder = "" if page == START else posixpath.dirname(f"docs/{page}")
    return posixpath.normpath(posixpath.join(folder, target))
