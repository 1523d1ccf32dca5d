"""Write the HTML report of finished runs and of comparisons anew, from what is in their folders.

    detkd report FOLDER [FOLDER ...] [--baseline RUN]

Every run and every comparison ends with it; by hand it is for those of an earlier version of detkd, and for folders that
were moved. What an older run has not kept is left out of its report.

A distilled run's report compares it with the student alone: with the finished run beside it whose configuration is the same
but for distill=null, or with --baseline, which must be such a run, wherever it lies.

Examples:
    detkd report runs/student
    detkd report runs/student --baseline elsewhere/alone
    # a comparison, and the runs of its first seed
    detkd report runs/comparison runs/comparison/*-0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run or a comparison")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="of the run that trained the same student alone")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write each report, and say where it is."""
    arguments = build_parser().parse_args(argv)

    with speaking(arguments):
        from detkd.engines.kept import check_baseline, find_baseline
        from detkd.report.html.report import write_report
        from detkd.report.reporter import reporter

        for folder in arguments.folders:
            given = arguments.baseline
            path = write_report(folder, find_baseline(folder) if given is None else check_baseline(folder, given))
            reporter().result({"event": "result", "report": str(path)}, str(path))
