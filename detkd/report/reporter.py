"""Who a command speaks to: a person at a terminal, a program that reads JSON lines, or nobody.

What a run has to say goes through :func:`reporter`, wherever it is said; as with standard output itself, a process has one.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from detkd.files import finite
from detkd.processes import is_first_process
from detkd.report.console import RunsProgress, TrainingProgress, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

    from rich.console import RenderableType


class Training(Protocol):
    """Follows the epochs of one run."""

    def step(self, epochs_done: float) -> None:
        """Take note of a number of epochs, which may lie within one."""

    def epoch(self, done: int, row: Mapping[str, float]) -> None:
        """Tell of an epoch that has just ended, by its row of the run's history."""


class Counting(Protocol):
    """Counts long pieces of work."""

    def finished(self, name: str) -> None:
        """Count one that has just ended."""


class Reporter(Protocol):
    """Tells what happens."""

    def note(self, text: str) -> None:
        """Say a sentence."""

    def training(self, run: str, epochs: int, title: str, watched: str) -> AbstractContextManager[Training]:
        """Follow the epochs of a run.

        Args:
            run: Its name.
            epochs: Their number.
            title: What the metric that is watched is called.
            watched: Its key in the history.
        """

    def counting(self, title: str, total: int, *, done: int, unit: str) -> AbstractContextManager[Counting]:
        """Count pieces of work; see :class:`detkd.report.console.RunsProgress`."""

    def result(self, record: Mapping[str, Any], *shown: RenderableType) -> None:
        """Tell what has come out.

        Args:
            record: For programs; `event` names its kind.
            shown: For people: lines, and tables or what else rich lays out.
        """


class ConsoleReporter:
    """Bars, tables and sentences on standard output; where it is no terminal, lines instead of bars."""

    def note(self, text: str) -> None:
        """Print it."""
        print(text)

    def training(self, run: str, epochs: int, title: str, watched: str) -> TrainingProgress:
        """Show a bar."""
        return TrainingProgress(run, epochs, title, watched)

    def counting(self, title: str, total: int, *, done: int, unit: str) -> RunsProgress:
        """Show a bar."""
        return RunsProgress(title, total, done=done, unit=unit)

    def result(self, record: Mapping[str, Any], *shown: RenderableType) -> None:
        """Print what is shown."""
        for part in shown:
            if isinstance(part, str):
                print(part)
            else:
                print_table(part)


class JsonReporter:
    """One JSON object a line for each epoch, each finished piece of work, and the result; sentences on standard error.

    Args:
        out: Where the lines are written.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _write(self, record: Mapping[str, Any]) -> None:
        print(json.dumps(finite(dict(record)), allow_nan=False), file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Print it beside the lines."""
        print(text, file=sys.stderr)

    @contextmanager
    def training(self, run: str, epochs: int, title: str, watched: str) -> Iterator[_JsonTraining]:
        """Write a line for each epoch."""
        yield _JsonTraining(self._write, run, epochs)

    @contextmanager
    def counting(self, title: str, total: int, *, done: int, unit: str) -> Iterator[_JsonCounting]:
        """Write a line for each piece."""
        yield _JsonCounting(self._write, total, done)

    def result(self, record: Mapping[str, Any], *shown: RenderableType) -> None:
        """Write the record."""
        self._write(record)


class _JsonTraining:
    def __init__(self, write: Any, run: str, epochs: int) -> None:
        self._write, self._run, self._epochs = write, run, epochs

    def step(self, epochs_done: float) -> None:
        """Say nothing before the epoch ends."""

    def epoch(self, done: int, row: Mapping[str, float]) -> None:
        self._write({"event": "epoch", "run": self._run, **row, "epoch": done, "epochs": self._epochs})


class _JsonCounting:
    def __init__(self, write: Any, total: int, done: int) -> None:
        self._write, self._total, self._done = write, total, done

    def finished(self, name: str) -> None:
        self._done += 1
        self._write({"event": "finished", "name": name, "done": self._done, "total": self._total})


class SilentReporter:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Keep it."""

    def training(self, run: str, epochs: int, title: str, watched: str) -> AbstractContextManager[SilentReporter]:
        """Follow in silence."""
        return nullcontext(self)

    def counting(self, title: str, total: int, *, done: int, unit: str) -> AbstractContextManager[SilentReporter]:
        """Count in silence."""
        return nullcontext(self)

    def result(self, record: Mapping[str, Any], *shown: RenderableType) -> None:
        """Keep it."""

    def step(self, epochs_done: float) -> None:
        """Keep it."""

    def epoch(self, done: int, row: Mapping[str, float]) -> None:
        """Keep it."""

    def finished(self, name: str) -> None:
        """Keep it."""


SILENT = SilentReporter()
_stack: list[Reporter] = [ConsoleReporter()]


def reporter() -> Reporter:
    """The process's reporter; of several processes that train together, the first one alone speaks."""
    return _stack[-1] if is_first_process() else SILENT


@contextmanager
def reporting(to: Reporter) -> Iterator[None]:
    """Let :func:`reporter` be another one meanwhile."""
    _stack.append(to)
    try:
        yield
    finally:
        _stack.pop()
