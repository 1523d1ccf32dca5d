"""Where a loss works between a student and a teacher: on maps, at anchors, on regions, by the names that it asks for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal

from detkd.adapters.base import TwoStageAdapter
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.vocabulary import (
    CROSSED_NAMES,
    DENSE_NAMES,
    DETECTED_NAMES,
    LEVEL_NAMES,
    MASK_NAMES,
    NEEDS_CLASSES,
    REGION_MASK_NAMES,
    REGION_NAMES,
    SOFTMAX_NAMES,
    TEACHER_DENSE_NAMES,
    TEACHER_REGION_NAMES,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from detkd.adapters.base import DetectorAdapter
    from detkd.pairing import Pairing

Place = Literal["levels", "dense", "crossed", "regions", "masks"]


def loss_inputs(name: str) -> tuple[str, ...]:
    """Names of the tensors that a loss asks for: the parameters of its ``forward`` that have no default."""
    parameters = list(inspect.signature(LOSSES[name].forward).parameters.values())[1:]
    return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


def find_place(name: str, inputs: Collection[str], student: DetectorAdapter) -> Place:
    """Where a loss works, by the names that it asks for.

    Raises:
        AdapterError: If the student does not offer all of them in one place.
    """
    place: Place
    if "student_feature" in inputs:
        place, offered = "levels", set(LEVEL_NAMES)
    elif CROSSED_NAMES.keys() & set(inputs):
        place, offered = "crossed", {*CROSSED_NAMES, *DENSE_NAMES}
    elif REGION_MASK_NAMES.keys() & set(inputs):
        place, offered = "masks", set(REGION_MASK_NAMES)
    elif isinstance(student, TwoStageAdapter) and not set(inputs) <= _dense_names(student):
        place, offered = "regions", set(REGION_NAMES)
    else:
        place, offered = "dense", _dense_names(student)
    unknown = [key for key in inputs if key not in offered]
    if unknown:
        raise AdapterError(
            f"Expected loss `{name}` to need only what {type(student.model).__name__} offers, but it needs {unknown}. "
            f"For its classes there are {_class_terms(student)}, for its features `pkd` and `fgd`."
        )
    return place


def _class_terms(student: DetectorAdapter) -> str:
    """Terms that a student can learn classes by."""
    if isinstance(student, TwoStageAdapter):
        return "`dkd` and `bounded_box` (from a teacher of two stages) and `region_label` (from any)"
    if student.dense == "softmax":
        return "`soft_kl` and `dist` (from a teacher with equal anchors)"
    return "`bckd` (from a teacher with equal anchors) and `detection_label` (from any)"


def _dense_names(student: DetectorAdapter) -> set[str]:
    """What a student's dense head can offer."""
    absent = {"student_logits", "teacher_logits"} if student.dense == "softmax" else SOFTMAX_NAMES
    if student.dense == "objectness":
        absent = {*absent, *DETECTED_NAMES}  # these have classes
    return {*DENSE_NAMES, *MASK_NAMES} - absent


def check_fit(
    name: str,
    place: Place,
    inputs: Collection[str],
    student: DetectorAdapter,
    teacher: DetectorAdapter,
    pairing: Pairing,
) -> None:
    """Refuse at the start what would only show as nonsense in the middle of a training run.

    Args:
        name: The loss.
        place: Where it works, from :func:`find_place`.
        inputs: The names that it asks for.
        student: Adapter of the student.
        teacher: Adapter of the teacher.
        pairing: How the two meet.

    Raises:
        AdapterError: If the teacher lacks what the loss needs, or says it of other classes or anchors.
    """
    wanted = set(inputs)
    objectness = place == "dense" and student.dense == "objectness"
    if place in {"regions", "masks"} or (wanted & NEEDS_CLASSES and not objectness):
        exclusive = place == "regions" or student.dense == "softmax"
        check = pairing.check_exclusive_classes if exclusive else pairing.check_classes
        check(name)
    if place == "dense" and wanted & TEACHER_DENSE_NAMES:
        pairing.check_anchors(name)
    if place == "regions" and wanted & TEACHER_REGION_NAMES and not isinstance(teacher, TwoStageAdapter):
        raise AdapterError(
            f"Expected a teacher with a second stage for `{name}`, but {type(teacher.model).__name__} has none. "
            "Use `region_label`, which learns from the detections of any teacher."
        )
    if place == "masks" and not (_draws_masks(student) and _draws_masks(teacher)):
        lacking = teacher if _draws_masks(student) else student
        raise AdapterError(
            f"Expected teacher and student to have a mask head for `{name}`, but {type(lacking.model).__name__} has "
            "none. Leave it out, or take two Mask R-CNNs."
        )
    if place == "crossed" and not (student.stage_channels and teacher.stage_channels):
        closed = student if teacher.stage_channels else teacher
        raise AdapterError(
            f"Expected heads that can be entered behind their first layer for `{name}`, but that of "
            f"{type(closed.model).__name__} cannot. Leave `{name}` out, or distil features (`pkd`, `fgd`)."
        )


def _draws_masks(adapter: DetectorAdapter) -> bool:
    return isinstance(adapter, TwoStageAdapter) and adapter.draws_masks
