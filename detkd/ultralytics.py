"""Distillation inside ultralytics' own API.

from ultralytics import YOLO
from detkd.ultralytics import distill_trainer

YOLO("yolo11n.yaml").train(data="DATA.yaml", epochs=100, trainer=distill_trainer("teacher.pt"))

With a cache of the teacher's outputs, which is made once and serves many students and seeds:

teacher = {"weights": "teacher.pt", "cache": "cache"}
cache_teacher(YOLO("yolo11n.yaml"), teacher, data="DATA.yaml", epochs=100)
YOLO("yolo11n.yaml").train(data="DATA.yaml", epochs=100, trainer=distill_trainer(teacher))
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from detkd.adapters.ultralytics import UltralyticsAdapter, import_ultralytics
from detkd.config import NOT_AHEAD, parse_distillation
from detkd.engines.caching import make_caches
from detkd.engines.distillation import build_distiller
from detkd.engines.distilling.ultralytics import distilling
from detkd.engines.families import build_teacher
from detkd.engines.resuming.ultralytics import saving_whole
from detkd.engines.ultralytics import torch_device
from detkd.engines.views.ultralytics import load_views, replaying
from detkd.errors import ConfigError
from detkd.inherit import select_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from detkd.balance import BalanceName
    from detkd.config import DistillConfig
    from detkd.distiller import Distiller
    from detkd.teachers.ensemble import EnsembleName

TASKS = ("detect", "segment")
TeacherLike: TypeAlias = "str | Path | Mapping[str, Any]"


def distill_trainer(
    teacher: TeacherLike | Sequence[TeacherLike],
    *,
    terms: Mapping[str, Mapping[str, Any]] | None = None,
    balance: BalanceName = "gradient_ratio",
    ensemble: EnsembleName = "mean",
    inherit: bool = False,
    task: str = "detect",
) -> Any:
    """Make a trainer for ``YOLO(...).train(trainer=...)`` whose student also learns from a teacher, or from several.

    All of ultralytics' arguments keep their meaning, and the checkpoints hold the student alone. To resume, give the same
    trainer and ``resume=True``.

    Args:
        teacher: A checkpoint that ultralytics wrote; or a mapping as in a configuration's ``distill.teacher``, with keys
            such as `weights`, `model`, `scale`, `classes`; or a list of these.
        terms: Loss name to its weight, schedule and arguments, as in ``distill.terms``; the recommended ones if None.
        balance: How weights are held against the task loss: ``gradient_ratio``, ``uncertainty`` or ``none``.
        ensemble: How several teachers are weighed, ``mean`` or ``ca_mkd``.
        inherit: Whether the student starts from a selection of the first teacher's weights, see
            :func:`detkd.inherit.select_weights`.
        task: ``detect`` or ``segment``, the student's.

    Returns:
        A subclass of ultralytics' ``DetectionTrainer`` or ``SegmentationTrainer``.

    Raises:
        ConfigError: If an argument is wrong; one line for each fault.
        WeightsError: When training starts, if a teacher cannot be loaded.
        AdapterError: When training starts, if a teacher and the student do not fit each other.
        CacheError: When training starts, if a teacher's `cache` is not of this run.
    """
    if task not in TASKS:
        raise ConfigError(f"task: expected one of {TASKS}, but got {task!r}.")
    if balance == "meta":
        raise ConfigError(f"balance: expected another one than meta: {NOT_AHEAD}.")
    config = _parse(teacher, terms, balance=balance, ensemble=ensemble, inherit=inherit)
    import_ultralytics()
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.models.yolo.segment import SegmentationTrainer

    def make_distiller(trainer: Any, student: nn.Module) -> Distiller:
        names = list(trainer.data["names"].values())
        imgsz = trainer.args.imgsz
        models = [
            build_teacher(spec, names, imgsz)[0] if spec.ema is None else copy.deepcopy(student)
            for spec in config.all_teachers
        ]
        if config.inherit and not trainer.resume:
            select_weights(student, models[0], (names, UltralyticsAdapter(models[0]).class_names))
        pictures = None if config.views is None else trainer.train_loader.dataset
        return build_distiller(student, models, config, imgsz, pictures)

    base = saving_whole(SegmentationTrainer if task == "segment" else DetectionTrainer)
    decays = [spec.ema for spec in config.all_teachers]
    return distilling(base if config.views is None else replaying(base, config.views), make_distiller, decays)


def cache_teacher(
    student: Any,
    teacher: TeacherLike | Sequence[TeacherLike],
    *,
    terms: Mapping[str, Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> None:
    """Make the cache that a run by :func:`distill_trainer` then reads; call it again to go on after an interruption.

    Args:
        student: ``YOLO(...)`` as it will be trained. Any student with the same levels may read the cache later.
        teacher: As for :func:`distill_trainer`, with key `cache`: the folder; and, if wanted, `views` and `anchors`.
        terms: As for :func:`distill_trainer`.
        arguments: Those of ``student.train()``.

    Raises:
        ConfigError: If an argument is wrong, or does not go with a cache; one line for each fault.
        WeightsError: If a teacher cannot be loaded.
        CacheError: If the folder holds another cache, or there is no room.
    """
    config = _parse(teacher, terms)
    if config.views is None:
        raise ConfigError("teacher.cache: expected the folder to make, but got none.")
    model = student.model
    pictures = load_views({**student.overrides, **arguments}, int(model.stride.max()), config.views)
    model.names = pictures.data["names"]
    args, names = pictures.args, list(model.names.values())
    if not isinstance(args.batch, int) or args.batch < 1:
        raise ConfigError(f"batch: expected a number of pictures from 1 on, but got {args.batch}.")
    make_caches(model, names, config, pictures, torch_device(args.device), batch=args.batch, imgsz=args.imgsz)


def _parse(
    teacher: TeacherLike | Sequence[TeacherLike], terms: Mapping[str, Mapping[str, Any]] | None, **others: Any
) -> DistillConfig:
    tree = dict(others)
    if isinstance(teacher, str | Path | Mapping):
        tree["teacher"] = _describe(teacher)
    else:
        tree["teachers"] = [_describe(each) for each in teacher]
    return parse_distillation(tree if terms is None else {**tree, "terms": terms})


def _describe(teacher: Any) -> dict[str, Any]:
    return {"weights": str(teacher)} if isinstance(teacher, str | Path) else dict(teacher)
