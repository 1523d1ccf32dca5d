"""Fill what docs/ tells of the code: every loss's formula, settings and source, and every key of a configuration.

    python tools/make_docs.py

It rewrites what stands between `<!-- loss NAME -->` or `<!-- keys MODULE.CLASS -->` and `<!-- end -->`, from docstrings,
signatures and field descriptions; the prose around it is written by hand. The pages are kept filled, because they are read
in the repository too, where nothing runs; a test fails where one is behind the code.
"""

from __future__ import annotations

import re
from pathlib import Path

from docs_keys import keys_block
from docs_losses import loss_block

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"(<!-- (loss|keys) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAKERS = {"loss": loss_block, "keys": keys_block}


def fill(page: str) -> str:
    """A page with all of its blocks made anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{MAKERS[block[2]](block[3])}\n{block[4]}", page)


def main() -> None:
    """Fill every page, and say which have changed."""
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"docs/{page.name}: filled anew")


if __name__ == "__main__":
    main()
