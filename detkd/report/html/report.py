"""Reports as one HTML file that needs nothing else: for phones and paper, in light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.errors import DataError
from detkd.files import remove_remains_of, write_text
from detkd.report.html.comparison import comparison_page
from detkd.report.html.run import run_page
from detkd.report.records import COMPARISON, RESULTS

if TYPE_CHECKING:
    from pathlib import Path

FILE = "report.html"


def write_report(folder: Path, baseline: Path | None = None) -> Path:
    """Write ``report.html`` of a finished run or of a comparison into its folder.

    Args:
        folder: Of a run, with ``results.json``, or of a comparison, with ``comparison.json``.
        baseline: Of a run that trained the run's student alone, with which it is compared.

    Returns:
        The file.

    Raises:
        DataError: If the folder is neither, or a file that it holds is broken or of something else.
    """
    if (folder / COMPARISON).is_file():
        text = comparison_page(folder)
    elif (folder / RESULTS).is_file():
        text = run_page(folder, baseline)
    else:
        raise DataError(
            f"Expected the folder of a finished run or a comparison, with {RESULTS} or {COMPARISON}, but {folder} has "
            "neither. Finish the run with --resume first."
        )
    remove_remains_of(folder / FILE)
    write_text(folder / FILE, text)
    return folder / FILE
