"""Reports as one HTML file that needs nothing else: for phones and paper, in light and dark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from detkd.errors import DataError
from detkd.files import write_text
from detkd.report.html.comparison import comparison_page
from detkd.report.html.run import run_page

if TYPE_CHECKING:
    from pathlib import Path

FILE = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a finished run or of a comparison into its folder.

    Args:
        folder: Of a run, with ``results.json``, or of a comparison, with ``comparison.json``.

    Returns:
        The file.

    Raises:
        DataError: If the folder is neither, or what it holds was written by something else.
    """
    pages = {"comparison.json": comparison_page, "results.json": run_page}
    page = next((page for name, page in pages.items() if (folder / name).is_file()), None)
    if page is None:
        raise DataError(
            f"Expected the folder of a finished run or a comparison, with {' or '.join(reversed(pages))}, but {folder} has "
            "neither. Finish the run with --resume first."
        )
    try:
        text = page(folder)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise DataError(
            f"{folder}: expected what this version of detkd writes, but: {type(error).__name__} {error}. Write it anew."
        ) from error
    write_text(folder / FILE, text)
    return folder / FILE
