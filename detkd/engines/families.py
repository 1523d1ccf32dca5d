"""The families of models: what differs between them in a run, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from detkd.adapters.ultralytics import as_yolo, load_yolo
from detkd.engines import ultralytics
from detkd.engines.lightning.classification import ClassificationTraining, TextTraining
from detkd.engines.lightning.detection import DetectionTraining
from detkd.engines.lightning.segmentation import SegmentationTraining
from detkd.engines.lightning.training import LightningEngine
from detkd.evaluation import torchvision as torchvision_evaluation
from detkd.evaluation import ultralytics as ultralytics_evaluation
from detkd.models import classifier_files, torchvision, unet
from detkd.models.pruning import prune
from detkd.models.ultralytics import build_yolo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from torch import nn

    from detkd.config import RunConfig
    from detkd.distiller import Distiller
    from detkd.engines.result import TrainingResult
    from detkd.model_config import ModelConfig, TeacherConfig
    from detkd.teachers.pictures import Pictures


class Engine(Protocol):
    """What trains the students of a family."""

    LAST_CHECKPOINT: Path

    def check(self, config: RunConfig) -> None:
        """Refuse what the engine does not know, before anything is written.

        Raises:
            ConfigError: With one line for each fault.
        """

    def torch_device(self, name: str) -> torch.device:
        """The device of a name in a configuration."""

    def batches_per_step(self, config: RunConfig) -> int:
        """Batches whose gradients the optimizer's step takes together, once any warm-up is over."""

    def training_views(self, config: RunConfig, dataset: Any, student: nn.Module) -> Pictures | None:
        """The augmented pictures of a run whose teacher is cached; None where no teacher is.

        Raises:
            ConfigError: If the configuration allows no replay.
        """

    def train(
        self,
        student: nn.Module,
        distiller: Distiller | None,
        config: RunConfig,
        dataset: Any,
        folder: Path,
        *,
        resume: bool,
    ) -> TrainingResult:
        """Train a student as configured.

        Args:
            student: The student.
            distiller: Its distiller, or None to train alone.
            config: The run.
            dataset: Its data.
            folder: Of the run, where the engine keeps what it needs to resume.
            resume: Whether to go on from the folder's last checkpoint.
        """


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        engine: What trains its students.
        checkpoint: Name of the student's file in the folder of a run.
        load: Reads such a file, for a size of input, None for the one that it was trained at.
        imgsz: Side in pixels of the input of a model that was read so.
        build: Builds a model from its configuration, for classes, in a role, for a size of input, with a tokenizer; and
            says in a sentence where its weights came from.
        predictor: Makes of a model what gives its COCO results on image files, with COCO ground truth that names their ids,
            at an `imgsz`; see :func:`detkd.evaluation.ultralytics.predict_coco`. None of all others.
    """

    engine: Engine
    checkpoint: str
    load: Callable[[Path, int | None], nn.Module]
    imgsz: Callable[[nn.Module], int]
    build: Callable[[ModelConfig, Sequence[str], str, int, str | None], tuple[nn.Module, str]]
    predictor: Callable[[nn.Module], Callable[..., list[dict[str, Any]]]] | None


def _classifying(task: ClassificationTraining) -> Family:
    """A family of classifiers."""
    return Family(
        engine=LightningEngine(task),
        checkpoint="student.safetensors",
        load=classifier_files.load_model,
        imgsz=lambda model: int(cast("Any", model).architecture.imgsz),
        build=lambda spec, names, role, imgsz, tokenizer: classifier_files.build_model(
            spec, names, role=role, imgsz=imgsz, tokenizer=tokenizer
        ),
        predictor=None,
    )


FAMILIES = {
    "yolo": Family(
        engine=ultralytics,
        checkpoint="student.pt",
        load=lambda path, _: load_yolo(path).model.float(),  # takes any size
        imgsz=lambda model: int(cast("Any", model).args["imgsz"]),
        build=lambda spec, names, role, *_: build_yolo(spec, names, role=role),
        predictor=lambda model: partial(ultralytics_evaluation.predict_coco, as_yolo(model)),
    ),
    "torchvision": Family(
        engine=LightningEngine(DetectionTraining()),
        checkpoint="student.safetensors",
        load=torchvision.load_model,
        imgsz=lambda model: int(cast("Any", model).architecture.imgsz),
        build=lambda spec, names, role, imgsz, _: torchvision.build_model(spec, names, role=role, imgsz=imgsz),
        predictor=lambda model: partial(
            torchvision_evaluation.predict_coco, model, class_names=cast("Any", model).class_names
        ),
    ),
    "unet": Family(
        engine=LightningEngine(SegmentationTraining()),
        checkpoint="student.safetensors",
        load=unet.load_model,
        imgsz=lambda model: int(cast("Any", model).architecture.imgsz),
        build=lambda spec, names, role, imgsz, _: unet.build_model(spec, names, role=role, imgsz=imgsz),
        predictor=None,
    ),
    "classifier": _classifying(ClassificationTraining()),
    "text": _classifying(TextTraining()),
}


def build_model(
    spec: ModelConfig, class_names: Sequence[str], *, role: str, imgsz: int, tokenizer: str | None = None
) -> tuple[nn.Module, str]:
    """Build a model of any family for a data set's classes, and fill it with weights.

    Args:
        spec: Architecture and, or, weights. A checkpoint alone brings its own architecture.
        class_names: Classes of the data set; an architecture is built for as many.
        role: ``student`` or ``teacher``, for messages.
        imgsz: Side of its input in pixels.
        tokenizer: What makes tokens of sentences, as JSON; for those alone.

    Returns:
        The model in float32, and a sentence on where its weights came from.

    Raises:
        ConfigError: If neither architecture nor weights are given, or the architecture is unknown.
        WeightsError: If the weights are missing, unreadable or fit nothing.
    """
    return FAMILIES[spec.family].build(spec, class_names, role, imgsz, tokenizer)


def build_teacher(
    spec: TeacherConfig, class_names: Sequence[str], imgsz: int, tokenizer: str | None = None
) -> tuple[nn.Module, str]:
    """Build a teacher for the size at which it sees a student's pictures of `imgsz` pixels; see :func:`build_model`.

    Raises:
        ConfigError: Also if it is to be pruned, and cannot be.
    """
    model, origin = build_model(spec, class_names, role="teacher", imgsz=round(imgsz * spec.scale), tokenizer=tokenizer)
    return (model, origin) if spec.prune is None else (model, f"{origin}; {prune(model, spec.prune)}")
