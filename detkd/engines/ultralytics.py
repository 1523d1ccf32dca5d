"""A YOLO student's training inside ultralytics' own trainer."""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from detkd.adapters.restricted.ultralytics import restricted
from detkd.adapters.ultralytics import UltralyticsAdapter, import_ultralytics, quiet
from detkd.engines.detection import TITLE, WATCHED
from detkd.engines.distilling.ultralytics import distilling
from detkd.engines.following import following, loggers_of
from detkd.engines.result import TrainingResult
from detkd.engines.resuming.ultralytics import epochs_left, forget_later_epochs, saving_whole
from detkd.engines.views.ultralytics import Views, load_views, replaying
from detkd.errors import ConfigError, DetkdError, one_line
from detkd.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import torch
    from torch import nn

    from detkd.config import RunConfig
    from detkd.data.detection import DetectionDataset
    from detkd.distiller import Distiller
    from detkd.report.loggers import Log
    from detkd.report.reporter import Training

# What detkd sets itself from the sections of its own configuration.
_RESERVED = (
    "model",
    "data",
    "epochs",
    "imgsz",
    "batch",
    "seed",
    "device",
    "project",
    "name",
    "exist_ok",
    "resume",
    "mode",
    "task",
)
# Arguments that detkd cannot follow, by the value that it can.
_FIXED = {
    "single_cls": (False, "expected false, as the teacher tells classes apart; map them in data.yaml."),
    "save": (True, "expected true: what is judged in the end is the best checkpoint."),
}
LAST_CHECKPOINT = Path("ultralytics", "weights", "last.pt")  # in a run's folder


def trainer_arguments(config: RunConfig, data_yaml: Path, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Merge detkd's settings and the user's into arguments of ultralytics' trainer.

    Args:
        config: The run's configuration.
        data_yaml: The data set, with absolute paths.
        folder: The run's folder.
        resume: Whether to go on from the folder's last checkpoint.

    Raises:
        ConfigError: If `trainer` holds a key that ultralytics does not know or that another section sets.
    """
    import_ultralytics()
    from ultralytics.utils import DEFAULT_CFG_DICT

    faults = [f"trainer.{key}: set by another section; remove it here." for key in config.trainer if key in _RESERVED]
    if config.distill is not None and "distill_model" in config.trainer:
        faults.append("trainer.distill_model: ultralytics' own distillation; give it with distill=null.")
    faults += [
        f"trainer.{key}: unknown to ultralytics' trainer; got {value!r}."
        for key, value in config.trainer.items()
        if key not in DEFAULT_CFG_DICT
    ]
    faults += [
        f"trainer.{key}: {reason}"
        for key, (value, reason) in _FIXED.items()
        if key in config.trainer and config.trainer[key] != value
    ]
    smaller = config.distill is not None and any(spec.scale < 1 for spec in config.distill.all_teachers)
    faults += [
        f"trainer.{key}: expected none beside a teacher's `scale` below 1, whose strides not all sizes of batches fit."
        for key in ("multi_scale", "rect")
        if smaller and config.trainer.get(key)
    ]
    if config.distill is not None and config.distill.inherit and config.student.weights and not config.student.model:
        faults.append("distill.inherit: expected no checkpoint alone in student.weights, which the student starts from.")
    if "," in config.train.device and "LOCAL_RANK" not in os.environ:
        faults.append(
            "train.device: expected one device, or torchrun --nproc-per-node N -m detkd train-det, which gives each of "
            "them a process."
        )
    if faults:
        raise ConfigError("\n".join(faults))
    train = config.train
    return {
        # Gradients of small sets are not gathered over 64 images as ultralytics does: that starves them of steps.
        "nbs": train.batch,
        "plots": False,
        "verbose": False,
        **config.trainer,
        "model": config.student.model or str(config.student.weights),
        "data": str(data_yaml),
        "epochs": train.epochs,
        "imgsz": train.imgsz,
        "batch": train.batch,
        "seed": train.seed,
        "device": train.device,
        "project": str(folder.resolve()),
        "name": "ultralytics",
        "exist_ok": True,
        "resume": str((folder / LAST_CHECKPOINT).resolve()) if resume else False,
    }


def batches_per_step(config: RunConfig) -> int:
    """Batches whose gradients the optimizer's step takes together, once the warm-up is over."""
    nominal: int = trainer_arguments(config, config.data, config.output)["nbs"]
    return max(round(nominal / config.train.batch), 1)


def torch_device(name: str) -> torch.device:
    """The device that ultralytics means by a name such as cpu or 0."""
    from ultralytics.utils.torch_utils import select_device

    device: torch.device = select_device(name, verbose=False)
    return device


def training_views(config: RunConfig, dataset: DetectionDataset, student: nn.Module) -> Views | None:
    """The augmented pictures of a run whose teacher is cached, before its trainer exists; None where no teacher is.

    Raises:
        ConfigError: If the trainer's arguments allow no replay.
    """
    if config.distill is None or config.distill.views is None:
        return None
    with tempfile.TemporaryDirectory() as name, quiet(), restricted():
        data = Path(name, "data.yaml")
        dataset.write_yaml(data)
        arguments = trainer_arguments(config, data, Path(name))
        return load_views(arguments, max(UltralyticsAdapter(student).strides), config.distill.views)


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep ultralytics from telling every service that its settings allow and that is installed, and its own.

    A run of detkd tells those that its configuration names; ultralytics tells of a trainer while it is being made.
    """
    from ultralytics.utils import callbacks

    original = callbacks.add_integration_callbacks
    callbacks.add_integration_callbacks = lambda *_: None
    try:
        yield
    finally:
        callbacks.add_integration_callbacks = original


def _student_trainer(student: nn.Module) -> Any:
    """Subclass ultralytics' trainer for the student's task; made here because ultralytics is imported lazily."""
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.models.yolo.segment import SegmentationTrainer
    from ultralytics.nn.tasks import SegmentationModel
    from ultralytics.utils import RANK
    from ultralytics.utils.torch_utils import strip_optimizer

    base: Any = SegmentationTrainer if isinstance(student, SegmentationModel) else DetectionTrainer

    class StudentTrainer(saving_whole(base)):  # type: ignore[misc]
        """ultralytics' trainer for a student that detkd has built, which tells of its epochs as detkd does.

        The files that it reads may be hostile, and a kill at any moment leaves them fit to go on from.
        """

        def __init__(self, student: nn.Module, overrides: dict[str, Any], followed: Training) -> None:
            self.student = student
            self.followed = followed
            self.steps = self.shown = 0
            with restricted(), _no_services():
                super().__init__(overrides=overrides)
            self.add_callback("on_train_batch_end", StudentTrainer.show_step)
            self.add_callback("on_fit_epoch_end", StudentTrainer.show_epoch)

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            """Return the student; a resumed run fills it from its checkpoint."""
            model: Any = self.set_model_names_for_load(self.student)
            if weights is not None:
                model.load(weights, verbose=verbose)
            return cast("nn.Module", model)

        def check_resume(self, overrides: dict[str, Any]) -> None:
            """Go on with the arguments of the run's own configuration; those in a checkpoint may lead anywhere."""
            self.resume = bool(self.args.resume)
            if self.resume:
                self.args.model = str(self.args.resume)

        def train(self) -> Any:
            """Train, or what is left of it after a kill."""
            with restricted():
                left = epochs_left(self.last, self.epochs, self.args.patience) if self.resume else self.epochs
                if self.resume:
                    forget_later_epochs(self.csv, self.epochs - left)
                return super().train() if left else self.final_eval()

        def _handle_nan_recovery(self, epoch: int) -> bool:
            """Go back to the last checkpoint as ultralytics does; where it cannot, and would train on, end.

            Raises:
                DetkdError: If the loss is not finite.
            """
            advice = "Lower trainer.lr0, or train with trainer.amp=false."
            try:
                recovered = bool(super()._handle_nan_recovery(epoch))
            except RuntimeError as error:
                raise DetkdError(f"Expected finite losses, but: {one_line(error)}. {advice}") from error
            if not recovered and self.loss is not None and not self.loss.isfinite():
                raise DetkdError(f"Expected finite losses, but in epoch {epoch + 1} they are not. {advice}")
            return recovered

        def final_eval(self) -> None:
            """Strip the best checkpoint of what training needs.

            The last one stays as it is: a run that is killed while detkd evaluates goes on from it.
            """
            if RANK > 0:
                return
            with replacing(self.best) as temporary:
                updates = {"train_results": self.read_results_csv()}
                if not self.best.exists() or not strip_optimizer(self.best, str(temporary), updates):
                    raise DetkdError(f"Expected the best checkpoint of the training at {self.best}, but it is none.")

        def show_step(self) -> None:
            """Tell of one batch."""
            self.steps += 1
            self.followed.step(self.start_epoch + self.steps / len(self.train_loader))

        def show_epoch(self) -> None:
            """Tell of an epoch; ultralytics calls this once more at the end, for the best checkpoint."""
            if self.epoch < self.epochs and self.epoch + 1 > self.shown:
                self.shown = self.epoch + 1
                row = {**self.label_loss_items(self.tloss), **self.metrics, **self.lr}  # as it writes results.csv
                self.followed.epoch(self.epoch + 1, {key: float(value) for key, value in row.items()})

    return StudentTrainer


def train(
    student: nn.Module,
    distiller: Distiller | None,
    config: RunConfig,
    dataset: DetectionDataset,
    folder: Path,
    *,
    resume: bool,
) -> TrainingResult:
    """Train a student as configured; see :class:`detkd.engines.families.Engine`."""
    data_yaml = folder / "ultralytics" / "data.yaml"
    dataset.write_yaml(data_yaml)
    arguments = trainer_arguments(config, data_yaml, folder, resume=resume)
    views = config.distill.views if config.distill is not None else None
    decays = [spec.ema for spec in config.distill.all_teachers] if config.distill is not None else []
    return run_trainer(student, distiller, arguments, views, loggers_of(config, folder), decays)


def check(config: RunConfig) -> None:
    """Refuse arguments that ultralytics' trainer does not know or take; see :func:`trainer_arguments`."""
    arguments = trainer_arguments(config, config.data, config.output)
    from ultralytics.cfg import get_cfg

    try:
        get_cfg(overrides=arguments)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(f"trainer: expected arguments that ultralytics takes, but: {one_line(error)}") from error
    try:
        torch_device(config.train.device)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"train.device: expected cpu, or a GPU that is there, but: {one_line(error)}") from error


def run_trainer(
    student: nn.Module,
    distiller: Distiller | None,
    arguments: dict[str, Any],
    views: int | None = None,
    loggers: Sequence[AbstractContextManager[Log]] = (),
    decays: Sequence[float | None] = (),
) -> TrainingResult:
    """Train a student with ultralytics' trainer.

    Args:
        student: A YOLO.
        distiller: Its distiller, or None to train alone.
        arguments: From :func:`trainer_arguments`.
        views: Augmented pictures of each image to go through, see :func:`detkd.engines.views.ultralytics.replaying`; None
            draws new ones in every epoch.
        loggers: Who is told of each epoch beside the reporter.
        decays: See :func:`detkd.engines.distilling.ultralytics.distilling`.
    """
    voice = contextlib.nullcontext() if arguments["verbose"] else quiet()
    run = Path(arguments["project"]).name
    with voice, following(run, arguments["epochs"], TITLE, WATCHED, loggers) as followed:
        base = _student_trainer(student)
        kind = base if views is None else replaying(base, views)
        if distiller is not None:
            kind = distilling(kind, lambda *_: distiller, decays)
        trainer = kind(student, arguments, followed)
        trainer.train()
    history = _read_history(Path(trainer.csv))
    return TrainingResult(
        checkpoint=Path(trainer.best),
        seconds=_total_seconds([row["time"] for row in history]),
        history=history,
        weights=trainer.weight_log.epochs if distiller is not None else [],
    )


def _total_seconds(clock: Sequence[float]) -> float:
    """Add up a clock that starts anew at each resumption."""
    ends = [now for now, after in zip(clock, [*clock[1:], 0.0], strict=True) if after < now]
    return sum(ends)


def _read_history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key.strip(): float(value) for key, value in row.items() if key and value not in (None, "")}
            for row in csv.DictReader(file)
        ]
