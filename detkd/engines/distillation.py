"""Teachers, student and terms of a configuration, bound together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.adapters.base import ClassifierAdapter
from detkd.adapters.families import make_any_adapter
from detkd.distiller import Distiller
from detkd.kinds import drawing_for, kept_for
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from detkd.config import DistillConfig
    from detkd.model_config import TeacherConfig
    from detkd.teachers.pictures import Pictures


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
    adapter = make_any_adapter(student)
    distiller = Distiller(
        adapter,
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
    example = adapter.example if isinstance(adapter, ClassifierAdapter) else torch.zeros(1, 3, imgsz, imgsz)
    distiller.to(device).try_out(example.to(device))
    return distiller


def live_teacher(model: nn.Module, spec: TeacherConfig) -> LiveTeacher:
    """A teacher that runs."""
    return LiveTeacher(
        make_any_adapter(model),
        scale=spec.scale,
        classes=spec.classes,
        precision=spec.precision,
        mirrored=spec.mirrored,
        compiled=spec.compile,
    )


def cache_source(
    student: nn.Module, model: nn.Module, spec: TeacherConfig, config: DistillConfig, pictures: Pictures
) -> Source:
    """What a teacher's cache is made from: the teacher, the pictures, and what the terms need of it."""
    live = live_teacher(model, spec)
    adapter = make_any_adapter(student)
    kept = kept_for(adapter, live, config.losses(), spec.anchors, config.ensemble)
    return Source(live, kept, pictures, drawing_for(adapter, live) if kept.drawn else None)
