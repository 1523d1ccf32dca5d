"""Distillation inside ultralytics' own API.

from ultralytics import YOLO
from detkd.ultralytics import distill_trainer

YOLO("yolo11n.yaml").train(data="DATA.yaml", epochs=100, trainer=distill_trainer("teacher.pt"))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.adapters.ultralytics import import_ultralytics
from detkd.config import parse_distillation
from detkd.engines.distilling.ultralytics import distilling
from detkd.engines.ultralytics import build_distiller, build_model
from detkd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from detkd.balance import BalanceName
    from detkd.distiller import Distiller

TASKS = ("detect", "segment")


def distill_trainer(
    teacher: str | Path | Mapping[str, Any],
    *,
    terms: Mapping[str, Mapping[str, Any]] | None = None,
    balance: BalanceName = "gradient_ratio",
    classes: Mapping[str, str] | None = None,
    scale: float = 1.0,
    task: str = "detect",
) -> Any:
    """Make a trainer for ``YOLO(...).train(trainer=...)`` whose student also learns from a teacher.

    All of ultralytics' arguments keep their meaning, and the checkpoints hold the student alone. To resume, give the same
    trainer and ``resume=True``.

    Args:
        teacher: A checkpoint that ultralytics wrote; or a mapping of `model` and `weights` as in a configuration's
            ``distill.teacher``.
        terms: Loss name to its weight and arguments, as in ``distill.terms``; the recommended ones if None.
        balance: How weights are held against the task loss, ``gradient_ratio`` or ``none``.
        classes: Teacher's class for a student's class whose name differs.
        scale: Side of the teacher's input as a multiple of the student's.
        task: ``detect`` or ``segment``, the student's.

    Returns:
        A subclass of ultralytics' ``DetectionTrainer`` or ``SegmentationTrainer``.

    Raises:
        ConfigError: If an argument is wrong; one line for each fault.
        WeightsError: When training starts, if the teacher cannot be loaded.
        AdapterError: When training starts, if teacher and student do not fit each other.
    """
    if task not in TASKS:
        raise ConfigError(f"task: expected one of {TASKS}, but got {task!r}.")
    given = {"weights": str(teacher)} if isinstance(teacher, str | Path) else dict(teacher)
    tree = {"teacher": given, "balance": balance, "classes": classes, "scale": scale}
    config = parse_distillation(tree if terms is None else {**tree, "terms": terms})
    import_ultralytics()
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.models.yolo.segment import SegmentationTrainer

    def make_distiller(trainer: Any, student: nn.Module) -> Distiller:
        model, _ = build_model(config.teacher, list(trainer.data["names"].values()), role="teacher")
        return build_distiller(student, model, config, trainer.args.imgsz)

    return distilling(SegmentationTrainer if task == "segment" else DetectionTrainer, make_distiller)
