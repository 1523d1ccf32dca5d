"""What a run shows on the terminal: its progress, and tables of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.console import RenderableType


class TrainingProgress:
    """A bar over all training steps with the latest validation AP; where no terminal is, one line an epoch.

    Args:
        run: Name of the run.
        epochs: Number of epochs.
        title: What the metric that is shown is called.
        watched: Its key in the history.
        console: Where to write; standard output if None.
    """

    def __init__(self, run: str, epochs: int, title: str, watched: str, console: Console | None = None) -> None:
        self._console = Console() if console is None else console
        self._run, self._epochs, self._title, self._watched = run, epochs, title, watched
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs  {task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(run, total=epochs, state="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, epochs_done: float) -> None:
        """Move the bar to a number of epochs, which may lie within one."""
        self._progress.update(self._task, completed=round(epochs_done, 2))

    def epoch(self, done: int, row: Mapping[str, float]) -> None:
        """Show the metric of an epoch that has just ended, if the epoch was judged."""
        state = f"{self._title} {row[self._watched]:.3f}" if self._watched in row else ""
        self._progress.update(self._task, completed=done, state=state)
        if not self._console.is_terminal:
            self._console.print(f"{self._run}: epoch {done}/{self._epochs}  {state}", highlight=False)


class RunsProgress:
    """A bar over several runs, or other long pieces of work; where no terminal is, one line a finished one.

    Args:
        title: Name of the whole.
        total: Number of runs.
        done: Number of runs that were finished before.
        unit: What is counted.
    """

    def __init__(self, title: str, total: int, *, done: int, unit: str = "runs") -> None:
        self._console = Console()
        self._total, self._done = total, done
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, completed=done)

    def __enter__(self) -> RunsProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def finished(self, name: str) -> None:
        """Count a run that has just ended."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        if not self._console.is_terminal:
            self._console.print(f"{name}: finished, {self._done} of {self._total}", highlight=False)


def results_table(rows: Sequence[tuple[str, Mapping[str, Any]]], split: str, columns: Sequence[str]) -> Table:
    """Lay out models side by side: COCO metrics, size and speed.

    Args:
        rows: Title of each model, and its section of results.json.
        split: The split whose metrics are shown.
        columns: The metrics; a model may lack some.
    """
    table = Table(title=f"Metrics on {split}")
    table.add_column("model")
    for name in (*columns, "parameters", "GFLOPs", "CPU ms/image"):
        table.add_column(name, justify="right")
    for title, model in rows:
        metrics = model["metrics"][split]
        table.add_row(
            title,
            *("" if metrics.get(name) is None else f"{metrics[name]:.3f}" for name in columns),
            f"{model['parameters'] / 1e6:.2f} M",
            f"{model['gflops']:.2f}",
            f"{model['cpu_ms']:.1f}",
        )
    return table


def print_table(table: RenderableType) -> None:
    """Print a table, or what else rich lays out, wide enough for its columns also where no terminal is."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 140))
    console.print(table)
