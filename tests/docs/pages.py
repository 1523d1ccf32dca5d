"""The pages of the documentation and their code blocks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}  # by their paths in the repository


class Block(NamedTuple):
    """A code block: its page, the line that it begins at, its language, which is empty if none is given, and its text."""

    page: str
    line: int
    language: str
    text: str


def blocks(language: str | None = None, page: str | None = None) -> list[Block]:
    """The blocks of a language and of a page, or of all."""
    found = [
        Block(name, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for name, text in PAGES.items()
        for token in MarkdownIt("commonmark").parse(text)
        if token.type in {"fence", "code_block"}
    ]
    return [block for block in found if language in {None, block.language} and page in {None, block.page}]


def name(block: Block) -> str:
    """What a test of a block is called."""
    return f"{block.page}:{block.line}"
