"""The options that say who a command speaks to, for all commands that speak."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import TextIO


def add_speaking_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--log``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument(
        "--log",
        choices=("rich", "json"),
        default="rich",
        help="bars and tables, or one JSON object a line on standard output and nothing else there (default: rich)",
    )


@contextlib.contextmanager
def speaking(arguments: argparse.Namespace) -> Iterator[None]:
    """Speak as the options want it, until the block ends.

    Args:
        arguments: With what :func:`add_speaking_options` adds.
    """
    from detkd.report.reporter import JsonReporter, reporting

    if arguments.quiet:
        with silence():
            yield
    elif arguments.log == "json":
        with _standard_output_to(2) as out, reporting(JsonReporter(out)):
            yield
    else:
        yield


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let nothing be heard, neither from detkd nor from the libraries below it, but what is raised."""
    from detkd.report.reporter import SILENT, reporting

    with open(os.devnull, "w") as nowhere, _standard_output_to(nowhere.fileno()), reporting(SILENT):
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _standard_output_to(descriptor: int) -> Iterator[TextIO]:
    """Send what anything prints elsewhere, compiled code and child processes included.

    Args:
        descriptor: Where to.

    Yields:
        What still writes to standard output.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(descriptor, 1)
        with (
            os.fdopen(os.dup(kept), "w", encoding="utf-8") as out,
            os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as elsewhere,
            contextlib.redirect_stdout(elsewhere),
        ):
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)
