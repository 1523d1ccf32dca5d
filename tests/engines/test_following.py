"""Who follows the epochs of a run."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from detkd.engines.following import following
from detkd.report.reporter import SilentReporter, reporting

if TYPE_CHECKING:
    from collections.abc import Mapping


class Heard(SilentReporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def test_a_logger_that_fails_is_told_no_more_and_the_run_goes_on() -> None:
    told: list[int] = []

    def failing(row: Mapping[str, float], epoch: int) -> None:
        if epoch == 2:
            raise ConnectionError("out of reach")
        told.append(-epoch)

    heard = Heard()
    loggers = [nullcontext(failing), nullcontext(lambda row, epoch: told.append(epoch))]
    with reporting(heard), following("run", 3, "AP", "AP", loggers) as training:
        for epoch in (1, 2, 3):
            training.epoch(epoch, {"epoch": epoch, "AP": 0.5})
    assert told == [-1, 1, 2, 3]
    assert heard.notes == ["A logger failed in epoch 2 and is told no more: out of reach"]
