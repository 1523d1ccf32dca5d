"""What happens around the epochs of a Lightning run."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback

from detkd.engines.averaging import WeightAverage
from detkd.engines.lightning.sharding import shard_like
from detkd.errors import DetkdError
from detkd.files import write_text
from detkd.report.reporter import reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytorch_lightning import LightningModule, Trainer
    from torch import nn

    from detkd.distiller import Distiller
    from detkd.engines.weight_log import WeightLog
    from detkd.report.reporter import Training


class Distilling(Callback):
    """Hooks on student and teachers while an epoch trains, and only then: validation and checkpoints see none.

    Args:
        distiller: The student's.
        log: Weights of its terms.
    """

    def __init__(self, distiller: Distiller, log: WeightLog) -> None:
        self._distiller, self._log = distiller, log

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the teachers to the student."""
        for teacher in self._distiller.teachers:
            teacher.to(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the hooks."""
        self._distiller.attach()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove them and keep the epoch's weights; after the first epoch, say what had to be held back."""
        self._distiller.detach()
        self._log.close_epoch()
        if len(self._log.epochs) == 1:
            for line in self._distiller.held_back():
                reporter().note(line)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the hooks."""
        self._distiller.detach()


class Averaging(Callback):
    """Counts a student's steps into a moving average of its weights.

    Args:
        student: The student, before any hook is installed.
        decay: Share of the average that a step keeps.
        model: A model like the student that becomes the average, such as a teacher; None makes one.
        name: What it is called in checkpoints, where there may be several.
    """

    def __init__(self, student: nn.Module, decay: float, model: nn.Module | None = None, name: str = "average") -> None:
        self._student, self._name = student, name
        self._average = WeightAverage(student, decay, model)

    @property
    def state_key(self) -> str:
        """Key of its state in checkpoints."""
        return f"{type(self).__name__} {self._name}"

    @property
    def model(self) -> nn.Module:
        """The average, a model of its own."""
        return self._average.model

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the average to the student, and keep as much of it as there is of the student."""
        self._average.to(pl_module.device)
        shard_like(self.model, self._student)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step of the optimizer."""
        if trainer.global_step > self._average.steps:
            self._average.update(self._student, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return self._average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._average.load_state_dict(state_dict)


class Watching(Callback):
    """Judges the student after each epoch, and keeps the run's history and files.

    The best student is written before the checkpoint of the epoch: whenever the process is killed, the run that goes on
    from the last checkpoint repeats what came after it.

    Args:
        student: The model to judge and to keep.
        judge: Gives the metrics of a model, the same in every process; the best has most of the one watched.
        watched: Its name.
        save: Writes a model, whole or not at all.
        folder: Where ``last.ckpt``, ``best.safetensors`` and ``results.csv`` are kept.
        patience: Validations without a better one before training stops; None never stops it.
        every: Epochs from one validation to the next; the last epoch always has one.

    Attributes:
        rows: The history.
        begun: Whether training has, so that all that a resumed run goes on from is restored.
    """

    def __init__(
        self,
        student: nn.Module,
        judge: Callable[[nn.Module], Mapping[str, float]],
        watched: str,
        save: Callable[[nn.Module, Path], None],
        folder: Path,
        patience: int | None,
        every: int = 1,
    ) -> None:
        self._student, self._judge, self._watched = student, judge, watched
        self._save, self._patience, self._every = save, patience, every
        self.last, self.best, self._csv = (folder / name for name in ("last.ckpt", "best.safetensors", "results.csv"))
        self.rows: list[dict[str, float]] = []
        self.begun = False
        self._before = 0.0  # seconds up to a resumption
        self._begin = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run that had lost its patience already is over."""
        self.begun = True
        self._begin = time.monotonic()
        self._before = self.rows[-1]["time"] if self.rows else 0.0
        trainer.should_stop = self._lost_patience()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the student and write what it is worth.

        Raises:
            DetkdError: If a loss is not finite.
        """
        losses = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        diverged = [name.removeprefix("train/") for name, value in losses.items() if not math.isfinite(value)]
        if diverged:
            raise DetkdError(
                f"Expected finite losses, but in epoch {trainer.current_epoch + 1} {diverged} are not. Lower optim.lr, or "
                "train with trainer.precision=32-true."
            )
        best = max(self._found, default=-math.inf)
        done = trainer.current_epoch + 1
        metrics = self._judge(self._student) if done % self._every == 0 or done == trainer.max_epochs else {}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        elapsed = self._before + time.monotonic() - self._begin
        self.rows.append({"epoch": done, "time": elapsed, **losses, **metrics, "lr": rate})
        if trainer.is_global_zero:
            if metrics and not metrics[self._watched] <= best:  # where it is not a number, the last one is kept
                self._save(self._student, self.best)
            write_text(self._csv, _csv(self.rows))
        trainer.save_checkpoint(self.last)
        trainer.should_stop = trainer.should_stop or self._lost_patience()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.rows[:] = state_dict["rows"]

    @property
    def _found(self) -> list[float]:
        """What all validations have found; what is not a number is the least."""
        found = [row[self._watched] for row in self.rows if self._watched in row]
        return [-math.inf if math.isnan(value) else value for value in found]

    def _lost_patience(self) -> bool:
        found = self._found
        return self._patience is not None and bool(found) and len(found) - 1 - found.index(max(found)) >= self._patience


class Continuing(Callback):
    """Brings the sampler to the epoch that a resumed run goes on with.

    Lightning does so when the epoch begins. By then the processes that compose pictures have asked for the first of them.

    Args:
        sampler: The training pictures'.
        rows: The history, a row an epoch, restored.
    """

    def __init__(self, sampler: Any, rows: list[dict[str, float]]) -> None:
        self._sampler, self._rows = sampler, rows

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the epoch."""
        self._sampler.set_epoch(len(self._rows))


class Showing(Callback):
    """Tells of the run.

    Args:
        training: What follows it.
        rows: The history that the run writes.
    """

    def __init__(self, training: Training, rows: list[dict[str, float]]) -> None:
        self._training, self._rows = training, rows

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell of one batch."""
        self._training.step(trainer.current_epoch + (batch_idx + 1) / float(trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the epoch."""
        self._training.epoch(trainer.current_epoch + 1, self._rows[-1])


def _csv(rows: list[dict[str, float]]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)  # an epoch without validation has no metrics
    lines = [",".join(names), *(",".join(f"{row.get(name, math.nan):.6g}" for name in names) for row in rows)]
    return "".join(f"{line}\n" for line in lines)
