"""Do teacher and student fit: their classes, their strides, and the sizes of their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.base import ClassifierAdapter
from detkd.adapters.families import make_any_adapter
from detkd.doctor.findings import Finding, Kind, passed
from detkd.engines.families import FAMILIES
from detkd.errors import AdapterError, DetkdError
from detkd.matching import match_classes, match_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from detkd.adapters.base import Adapter
    from detkd.config import RunConfig
    from detkd.model_config import TeacherConfig

MISFIT = Kind(
    "fit.refused",
    "error",
    "teacher and student do not fit each other in what a term needs",
    "Classes that do not map, no stride in common, or a loss that needs what one of the models lacks.",
    "Do what the message says: give the teacher's `classes`, another `scale` or `imgsz`, or leave the term out.",
)
CLASSES = Kind(
    "fit.classes",
    "warning",
    "the teacher says nothing of some classes",
    "The teacher has no class of that name, and its `classes` do not map it to another.",
    "Complete distill.teacher.classes (student's name to teacher's name), or train the teacher on the same classes.",
)
LEVELS = Kind(
    "fit.levels",
    "note",
    "some of the student's levels meet none of the teacher's",
    "The teacher has no level of that stride, at the size at which it sees the pictures.",
    "Where those levels matter, take a teacher with the same levels, or another distill.teacher.scale.",
)
SIZE = Kind(
    "fit.size",
    "warning",
    "the teacher sees pictures of another size than it was trained on",
    "It sees train.imgsz times distill.teacher.scale, which is far from the input of its training, and finds less there.",
    "Train the teacher at that size, or set distill.teacher.scale so that it sees what it knows.",
)
KINDS = (MISFIT, CLASSES, LEVELS, SIZE)

NEAR = 1.5  # factor between two sizes of input that costs a detector little


def check_fit(student: nn.Module, teachers: Sequence[nn.Module], config: RunConfig) -> list[Finding]:
    """Where each teacher and the student meet, and what is left out of it; averages of the student fit by themselves."""
    specs = config.distill.all_teachers if config.distill is not None else ()
    findings: list[Finding] = []
    for number, (teacher, spec) in enumerate(zip(teachers, specs, strict=True), start=1):
        if spec.ema is not None:
            continue
        name = "teacher" if len(teachers) == 1 else f"teacher {number}"
        own, other = make_any_adapter(student), make_any_adapter(teacher)
        found = [*_classes(name, own, other, spec), *_levels(name, own, other, spec), *_size(name, spec, config)]
        findings += found or [passed("fit", f"{name}: classes, strides and the size of the input are the student's.")]
    return findings


def _classes(name: str, student: Adapter, teacher: Adapter, spec: TeacherConfig) -> list[Finding]:
    try:
        common = match_classes(student.class_names, teacher.class_names, spec.classes)
    except AdapterError as error:
        return [MISFIT.found(str(error))]
    places = [] if common is None else common[0]
    missing = [] if places is None else [own for index, own in enumerate(student.class_names) if index not in places]
    if not missing:
        return []
    return [CLASSES.found(f"{name}: nothing of {missing}; it knows {_few(teacher.class_names)}.")]


def _levels(name: str, student: Adapter, teacher: Adapter, spec: TeacherConfig) -> list[Finding]:
    if isinstance(student, ClassifierAdapter):  # sentences meet layer by layer
        return []
    try:
        pairs = match_levels(student.strides, teacher.strides, spec.scale)
    except AdapterError:
        pairs = []  # refused where a term needs one
    alone = [stride for index, stride in enumerate(student.strides) if index not in {s for s, _ in pairs}]
    if not alone:
        return []
    return [LEVELS.found(f"{name}: strides {list(teacher.strides)} at {spec.scale:g} times the size; {alone} meet none.")]


def _size(name: str, spec: TeacherConfig, config: RunConfig) -> list[Finding]:
    """The size that a checkpoint says it was trained at; one of tensors alone says none."""
    if spec.weights is None or not spec.weights.is_file() or spec.family == "text":
        return []
    family = FAMILIES[spec.family]
    try:
        trained = family.imgsz(family.load(spec.weights, None))
    except (DetkdError, AttributeError, KeyError, TypeError):
        return []
    seen = round(config.train.imgsz * spec.scale)
    if max(trained, seen) <= NEAR * min(trained, seen):
        return []
    return [SIZE.found(f"{name}: trained at {trained} pixels, it sees {seen}.")]


def _few(names: Sequence[str], count: int = 8) -> str:
    shown = ", ".join(map(repr, names[:count]))
    return f"[{shown}{', ...' if len(names) > count else ''}]"
