"""Fill what docs/ tells of the code: losses, keys of a configuration, and findings of the doctor.

    python tools/make_docs.py

It rewrites what stands between `<!-- loss NAME -->`, `<!-- keys MODULE.CLASS -->` or `<!-- findings all -->` and
`<!-- end -->`, from docstrings, signatures, field descriptions and kinds of findings; the prose around it is written by
hand. The pages are kept filled, because they are read in the repository too, where nothing runs; a test fails where one is
behind the code.
"""

from __future__ import annotations

import re
from pathlib import Path

from docs_keys import keys_block
from docs_losses import loss_block

from detkd.doctor.catalogue import table

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"(<!-- (loss|keys|findings) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAKERS = {"loss": loss_block, "keys": keys_block, "findings": lambda _: table().rstrip()}


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
