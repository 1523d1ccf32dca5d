"""Files of ultralytics' trainer that a kill at any moment leaves fit to go on from."""

from __future__ import annotations

import csv
import re
import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from detkd.adapters.ultralytics import load_yolo
from detkd.errors import WeightsError
from detkd.files import replacing, write_text
from detkd.weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRIPPED = -1  # what ultralytics gives as the epoch of a checkpoint that no training goes on from


def saving_whole(base: Any) -> Any:
    """Subclass one of ultralytics' trainers so that a kill leaves its checkpoints whole.

    Args:
        base: ``DetectionTrainer``, ``SegmentationTrainer``, or a subclass.
    """

    class WholeTrainer(base):  # type: ignore[misc]
        """ultralytics' trainer with checkpoints that are there as a whole or not at all."""

        save_period: int

        def save_model(self) -> bool:
            """Save as ultralytics does."""
            # ultralytics would write the one of `save_period` in place, and before the last one is in its own.
            period, self.save_period = self.save_period, 0
            try:
                with _whole_checkpoints(self):
                    saved = bool(super().save_model())
            finally:
                self.save_period = period
            if saved and period > 0 and self.epoch % period == 0:
                with replacing(self.wdir / f"epoch{self.epoch}.pt") as copy:
                    shutil.copyfile(self.last, copy)
            return saved

        def resume_training(self, ckpt: Any) -> None:
            """Go on as ultralytics does, with no row of an epoch in the history that is trained anew."""
            super().resume_training(ckpt)
            if self.start_epoch and self.csv.exists():
                forget_later_epochs(self.csv, self.start_epoch)

    return WholeTrainer


@contextmanager
def _whole_checkpoints(trainer: Any) -> Iterator[None]:
    """Let ultralytics write its checkpoints beside their places, and move them there when they are whole."""
    names = ["last", "best"] if trainer.best_fitness == trainer.fitness else ["last"]  # the last one moves first: best.pt
    places: dict[str, Path] = {name: getattr(trainer, name) for name in names}
    with ExitStack() as stack:
        for name, place in places.items():
            setattr(trainer, name, stack.enter_context(replacing(place)))
        try:
            yield
        finally:
            for name, place in places.items():
                setattr(trainer, name, place)


def kept_epochs(folder: Path) -> list[int]:
    """Epochs whose checkpoints ultralytics' `save_period` keeps beside the last one and the best one."""
    matches = (re.fullmatch(r"epoch(\d+)\.pt", path.name) for path in folder.glob("epoch*.pt"))
    return sorted(int(match[1]) for match in matches if match)


def epochs_left(last: Path, epochs: int, patience: int) -> int:
    """Epochs that a run which was cut short still has to train; 0 where it was cut short after its training.

    Args:
        last: Its last checkpoint.
        epochs: Of the whole run.
        patience: Epochs without improvement that end it.

    Raises:
        WeightsError: If the checkpoint is none of ultralytics', or holds anything but known classes.
    """
    checkpoint = load_yolo(last).ckpt
    epoch, best = checkpoint.get("epoch"), (checkpoint.get("stopper") or {}).get("best_epoch", 0)
    if not isinstance(epoch, int) or not isinstance(best, int):
        raise WeightsError(f"Expected {last} to say its `epoch` and its best one, but it says {epoch!r} and {best!r}.")
    done = epoch + 1
    lost = best > 0 and done - best >= (patience or epochs)  # without validation there is no best one
    return 0 if epoch == STRIPPED or lost else max(epochs - done, 0)


def forget_later_epochs(history: Path, done: int) -> None:
    """Strike rows off ``results.csv`` that are of no saved epoch: ultralytics writes a row before its checkpoint.

    Args:
        history: The file.
        done: Epochs that the last checkpoint knows.

    Raises:
        WeightsError: If the file is missing or no such table.
    """
    try:
        with history.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        kept = [row for row in rows if len(row) == len(header) and float(row[0]) <= done]
    except (OSError, ValueError, csv.Error, IndexError) as error:
        raise WeightsError(f"Expected the history of the run to resume in {history}, but: {error}") from error
    write_text(history, "".join(",".join(row) + "\n" for row in (header, *kept)))


_STATE = "distiller-{}.pt"


def state_file(folder: Path, epoch: int) -> Path:
    """Where the state after an epoch is kept; the epoch in its name, so that it can't be taken for another one's."""
    return folder / _STATE.format(epoch)


def remove_other_states(folder: Path, epoch: int) -> None:
    """Keep the states after an epoch and those of the checkpoints that `save_period` keeps; remove all others."""
    needed = {state_file(folder, each) for each in (epoch, *kept_epochs(folder))}
    for old in set(folder.glob(_STATE.format("*"))) - needed:
        old.unlink()


def read_state(path: Path) -> dict[str, Any]:
    """Read what a resumed distillation needs, tensors and plain values.

    Raises:
        WeightsError: If the file is missing or something else.
    """
    if not path.is_file():
        raise WeightsError(
            f"Expected {path}, the aligners beside the checkpoint to resume from, but there is no such file. Resume from "
            f"last.pt, or from an epochN.pt with its {_STATE.format('N')}."
        )
    saved = read_tensors(path)
    content = saved if isinstance(saved, dict) else {}
    if not isinstance(content.get("distiller"), dict) or not isinstance(content.get("weights"), list):
        raise WeightsError(f"Expected {path} to hold the aligners of the run to resume, but it does not.")
    return content
