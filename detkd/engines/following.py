"""Who follows the epochs of a run: the reporter, and the loggers that the configuration names."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from detkd.errors import ConfigError, one_line
from detkd.processes import is_first_process
from detkd.report.loggers import LOGGERS, Log
from detkd.report.reporter import Training, reporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from detkd.config import RunConfig


def loggers_of(config: RunConfig, folder: Path) -> list[AbstractContextManager[Log]]:
    """The loggers of a run, to be opened when it begins; of several processes the first one alone has any."""
    content = config.model_dump(mode="json")
    names = dict.fromkeys(config.loggers) if is_first_process() else ()
    return [LOGGERS[name](folder, config.name, content) for name in names]


@contextmanager
def following(
    run: str, epochs: int, title: str, watched: str, loggers: Sequence[AbstractContextManager[Log]]
) -> Iterator[Training]:
    """Tell the reporter and the loggers of a run's epochs.

    Args:
        run: Name of the run.
        epochs: Their number.
        title: What the metric that is watched is called.
        watched: Its key in the history.
        loggers: From :func:`loggers_of`.

    Raises:
        ConfigError: If a logger cannot begin.
    """
    with ExitStack() as stack:
        try:
            logs = [stack.enter_context(logger) for logger in loggers]
        except Exception as error:  # of another package: its service is not reached, or not logged in to
            raise ConfigError(f"loggers: {one_line(error)}") from error
        yield _Followed(stack.enter_context(reporter().training(run, epochs, title, watched)), logs)


class _Followed:
    """The reporter's view of a run, and its loggers'."""

    def __init__(self, shown: Training, logs: Sequence[Log]) -> None:
        self._shown, self._logs = shown, list(logs)

    def step(self, epochs_done: float) -> None:
        self._shown.step(epochs_done)

    def epoch(self, done: int, row: Mapping[str, float]) -> None:
        for log in tuple(self._logs):
            try:
                log({key: value for key, value in row.items() if key != "epoch"}, done)
            except Exception as error:  # hours of training do not end because a service is out of reach
                self._logs.remove(log)
                reporter().note(f"A logger failed in epoch {done} and is told no more: {one_line(error)}")
        self._shown.epoch(done, row)
