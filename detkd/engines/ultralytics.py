"""Construction of YOLO students and teachers, and a student's training inside ultralytics' own trainer."""

from __future__ import annotations

import contextlib
import copy
import csv
import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from detkd.adapters.ultralytics import UltralyticsAdapter, import_ultralytics, load_weights, load_yolo, read_state_dict
from detkd.distiller import Distiller
from detkd.engines.distilling.ultralytics import distilling
from detkd.engines.views.ultralytics import Views, load_views, replaying
from detkd.errors import ConfigError, WeightsError
from detkd.report.console import TrainingProgress
from detkd.teacher_terms import kept_for
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from detkd.config import DetectionConfig, DistillConfig, ModelConfig, TeacherConfig
    from detkd.data.detection import DetectionDataset
    from detkd.teachers.pictures import Pictures

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
)
LAST_CHECKPOINT = Path("ultralytics", "weights", "last.pt")  # in a run's folder


@dataclass
class TrainingResult:
    """What a training run leaves behind.

    Attributes:
        checkpoint: The best student on the validation split, a plain ultralytics checkpoint.
        seconds: Wall-clock time of all epochs, validation after each included, also of those before a resumption.
        history: One row an epoch as ultralytics' results.csv has it, by column name.
        weights: Mean weight of every distillation term in each epoch.
    """

    checkpoint: Path
    seconds: float
    history: list[dict[str, float]]
    weights: list[dict[str, float]]


def build_model(spec: ModelConfig, class_names: Sequence[str], *, role: str) -> tuple[nn.Module, str]:
    """Build a YOLO for a data set's classes and fill it with weights.

    Args:
        spec: Architecture and, or, weights. A checkpoint alone brings its own architecture.
        class_names: Classes of the data set; an architecture is built for as many.
        role: ``student`` or ``teacher``, for messages.

    Returns:
        The model in float32, and a sentence on where its weights came from.

    Raises:
        ConfigError: If neither architecture nor weights are given, or the architecture is unknown.
        WeightsError: If the weights are missing, unreadable or fit nothing.
    """
    import_ultralytics()
    names = dict(enumerate(class_names))
    if spec.model is None or spec.model.endswith(".pt"):
        weights = spec.weights if spec.model is None else Path(spec.model)
        if weights is None:
            raise ConfigError(f"{role}: expected `model` (name or yaml), `weights`, or both, but got neither.")
        if read_state_dict(weights) is not None:
            raise WeightsError(
                f"{role}: expected `model` beside `weights`, because {weights} is a plain state dict, which does not "
                "say its architecture. Add e.g. `model: yolov5n.yaml`."
            )
        return load_yolo(weights).model.float(), f"all tensors from {weights}"
    model = _from_yaml(spec, len(names), role)
    model.names = names
    if spec.weights is None:
        return model, "from scratch"
    report = load_weights(model, spec.weights)
    return model, f"{report} ({spec.weights})"


def _from_yaml(spec: ModelConfig, classes: int, role: str) -> Any:
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    try:
        tree = copy.deepcopy(yaml_model_load(spec.model))
    except (FileNotFoundError, OSError) as error:
        raise ConfigError(
            f"{role}.model: expected an ultralytics model yaml (such as yolov5n.yaml) or a path to one, but got "
            f"{spec.model!r}."
        ) from error
    scale = tree.get("scale")
    if (spec.width is not None or spec.depth is not None) and scale not in tree.get("scales", {}):
        raise ConfigError(f"{role}: expected a yaml with scales for `width` and `depth`, but {spec.model} has none.")
    if spec.width is not None:
        tree["scales"][scale][1] = spec.width
    if spec.depth is not None:
        tree["scales"][scale][0] = spec.depth
    return DetectionModel(tree, nc=classes, verbose=False)


def trainer_arguments(config: DetectionConfig, data_yaml: Path, folder: Path, *, resume: bool = False) -> dict[str, Any]:
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


def build_distiller(
    student: nn.Module,
    teachers: Sequence[nn.Module],
    config: DistillConfig,
    imgsz: int,
    pictures: Pictures | None = None,
) -> Distiller:
    """Bind teachers and student, and try one forward pass so that a misfit shows before training starts.

    Args:
        student: The student.
        teachers: Models of ``config.all_teachers``, in their order.
        config: How they meet.
        imgsz: Side of the student's input in pixels.
        pictures: The views of the run, by which cached teachers are read; None runs every teacher.

    Raises:
        AdapterError: If a teacher and the student do not fit each other.
        CacheError: If a teacher's cache is not of this run.
    """
    device = next(student.parameters()).device
    for teacher in teachers:
        teacher.to(device)
    distiller = Distiller(
        UltralyticsAdapter(student),
        [
            live_teacher(model, spec)
            if spec.cache is None or pictures is None
            else CachedTeacher(cache_source(student, model, spec, config, pictures), spec.cache)
            for model, spec in zip(teachers, config.all_teachers, strict=True)
        ],
        config.losses(),
        config.balance,
        ensemble=config.ensemble,
        weights=[spec.share for spec in config.all_teachers],
    )
    distiller.to(device).try_out(torch.zeros(1, 3, imgsz, imgsz, device=device))
    return distiller


def live_teacher(model: nn.Module, spec: TeacherConfig) -> LiveTeacher:
    """A teacher that runs."""
    return LiveTeacher(UltralyticsAdapter(model), scale=spec.scale, classes=spec.classes, precision=spec.precision)


def cache_source(
    student: nn.Module, model: nn.Module, spec: TeacherConfig, config: DistillConfig, pictures: Pictures
) -> Source:
    """What a teacher's cache is made from: the teacher, the pictures, and what the terms need of it."""
    live = live_teacher(model, spec)
    return Source(live, kept_for(UltralyticsAdapter(student), live, config.losses(), spec.anchors), pictures)


def torch_device(name: str) -> torch.device:
    """The device that ultralytics means by a name such as cpu or 0."""
    from ultralytics.utils.torch_utils import select_device

    device: torch.device = select_device(name, verbose=False)
    return device


def training_views(config: DetectionConfig, dataset: DetectionDataset, student: nn.Module) -> Views | None:
    """The augmented pictures of a run whose teacher is cached, before its trainer exists; None where no teacher is.

    Raises:
        ConfigError: If the trainer's arguments allow no replay.
    """
    if config.distill is None or config.distill.views is None:
        return None
    with tempfile.TemporaryDirectory() as name, _silence():
        data = Path(name, "data.yaml")
        dataset.write_yaml(data)
        arguments = trainer_arguments(config, data, Path(name))
        return load_views(arguments, max(UltralyticsAdapter(student).strides), config.distill.views)


def _student_trainer() -> Any:
    """Subclass ultralytics' trainer; made here because ultralytics is imported lazily."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    class StudentTrainer(DetectionTrainer):  # type: ignore[misc]
        """ultralytics' trainer for a student that detkd has built, with detkd's progress."""

        def __init__(self, student: nn.Module, overrides: dict[str, Any], progress: TrainingProgress) -> None:
            self.student = student
            self.progress = progress
            self.steps = self.shown = 0
            super().__init__(overrides=overrides)
            self.add_callback("on_train_batch_end", StudentTrainer.show_step)
            self.add_callback("on_fit_epoch_end", StudentTrainer.show_epoch)

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            """Return the student; a resumed run fills it from its checkpoint."""
            model: Any = self.set_model_names_for_load(self.student)
            if weights is not None:
                model.load(weights, verbose=verbose)
            return cast("nn.Module", model)

        def show_step(self) -> None:
            """Move the progress bar by one batch."""
            self.steps += 1
            self.progress.step(self.start_epoch + self.steps / len(self.train_loader))

        def show_epoch(self) -> None:
            """Show what validation found; ultralytics calls this once more at the end, for the best checkpoint."""
            if self.epoch < self.epochs and self.epoch + 1 > self.shown:
                self.shown = self.epoch + 1
                self.progress.epoch(self.epoch + 1, {"val AP": float(self.metrics.get("metrics/mAP50-95(B)", math.nan))})

    return StudentTrainer


def train(
    student: nn.Module, distiller: Distiller | None, arguments: dict[str, Any], views: int | None = None
) -> TrainingResult:
    """Train a student with ultralytics' trainer.

    Args:
        student: A YOLO built by :func:`build_model`.
        distiller: Its distiller, or None to train alone.
        arguments: From :func:`trainer_arguments`.
        views: Augmented pictures of each image to go through, see :func:`detkd.engines.views.ultralytics.replaying`; None
            draws new ones in every epoch.
    """
    quiet = contextlib.nullcontext() if arguments["verbose"] else _silence()
    title = Path(arguments["project"]).name
    with quiet, TrainingProgress(title, arguments["epochs"]) as progress:
        kind = _student_trainer() if views is None else replaying(_student_trainer(), views)
        if distiller is not None:
            kind = distilling(kind, lambda *_: distiller)
        trainer = kind(student, arguments, progress)
        trainer.train()
    history = _read_history(Path(trainer.csv))
    return TrainingResult(
        checkpoint=Path(trainer.best),
        seconds=_total_seconds([row["time"] for row in history]),
        history=history,
        weights=trainer.weight_log.epochs if distiller is not None else [],
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep ultralytics to its warnings: its own bars would break into ours."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


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
