"""The distillation terms of a student and one teacher."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.aligners import make_aligner
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.pairing import Pairing
from detkd.schedules import Schedule
from detkd.teachers.packing import Kept
from detkd.vocabulary import (
    CROSSED_NAMES,
    DENSE_NAMES,
    LEVEL_NAMES,
    MASK_NAMES,
    NEEDS_CLASSES,
    completed,
    dense_tensors,
    level_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from detkd.adapters.base import DetectorAdapter
    from detkd.teachers.base import Teacher
    from detkd.types import DetectorOutputs


@dataclass(frozen=True)
class Term:
    """One distillation loss: its name in ``LOSSES``, its weight, its own arguments.

    Attributes:
        name: Key of ``detkd.losses.LOSSES``.
        weight: Factor of the loss; under ``gradient_ratio`` the norm of its gradient as a share of the task loss's. None
            is the method's published weight, or an equal part of a total share under ``gradient_ratio``.
        arguments: Keyword arguments of the loss module.
        schedule: Factor of the weight over time.
    """

    name: str
    weight: float | None = None
    arguments: Mapping[str, Any] | None = None
    schedule: Schedule = field(default_factory=Schedule)


class TeacherTerms(nn.Module):
    """Aligners and losses between a student and one teacher, on tensors that both have computed.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.

    Attributes:
        pairing: How the teacher's outputs are brought to the student's.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(self, student: DetectorAdapter, teacher: Teacher, terms: Sequence[Term]) -> None:
        super().__init__()
        self._student, self._teacher = student, teacher.adapter
        self.pairing = Pairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
        self._inputs = {term.name: loss_inputs(term.name) for term in terms}
        self._check()
        self.losses = nn.ModuleDict({term.name: self._build_loss(term) for term in terms})
        self.aligners = nn.ModuleDict({name: aligners for name in self.losses if (aligners := self._build_aligners(name))})

    def forward(
        self,
        names: Iterable[str],
        student: DetectorOutputs,
        teacher: DetectorOutputs,
        whole: DetectorOutputs,
        target_boxes: Tensor,
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term.

        Args:
            names: The terms to compute.
            student: The student's outputs, as `pairing` aligns them with the teacher's.
            teacher: The teacher's outputs, aligned with the student's.
            whole: The teacher's outputs in its own frame, with all levels and classes.
            target_boxes: Labelled boxes in pixels, padded with zeros to the largest count, [B, M, 4].
            size: Height and width of the student's input in pixels.
        """
        levels = level_tensors(teacher, target_boxes, size)
        heads = [
            dense_tensors(student, teacher, pair, target_boxes, size)
            for pair in zip(student.heads, teacher.heads, strict=False)  # of end-to-end and other models, the common one
        ]
        terms = {}
        for name in names:
            loss = self.losses[name]
            if isinstance(loss, nn.ModuleList):
                terms[name] = torch.stack(self._level_parts(name, student.features, levels)).sum()
            elif name in self.aligners:
                terms[name] = loss(*_pick(heads[0] | self._crossed(student, whole), self._inputs[name], name))
            else:
                parts = [loss(*_pick(head, self._inputs[name], name)) for head in heads]
                terms[name] = torch.stack(parts).mean()
        return terms

    def _level_parts(self, name: str, features: Sequence[Tensor], levels: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        losses, aligners = cast("nn.ModuleList", self.losses[name]), cast("nn.ModuleList", self.aligners[name])
        return [
            loss(*_pick({**level, "student_feature": aligner(feature.float())}, self._inputs[name], name))
            for loss, aligner, feature, level in zip(losses, aligners, features, levels, strict=True)
        ]

    def _crossed(self, student: DetectorOutputs, teacher: DetectorOutputs) -> dict[str, Tensor]:
        """What the teacher's head says of the student's features, and of its own."""
        stages = {}
        for (_, level), pair, aligners in zip(
            self.pairing.levels, student.stages, cast("nn.ModuleList", self.aligners["cross_kd"]), strict=True
        ):
            box_aligner, class_aligner = cast("nn.ModuleList", aligners)
            stages[level] = (box_aligner(pair[0].float()), class_aligner(pair[1].float()))
        crossed = self._teacher.finish(stages)
        crossed = replace(crossed, boxes=crossed.boxes / self.pairing.scale)
        whole = completed(self.pairing.common_levels(teacher).heads[0], crossed)
        return {
            "crossed_logits": crossed.logits,
            "crossed_boxes": crossed.boxes,
            "whole_teacher_logits": whole.logits,
            "teacher_boxes": whole.boxes,
        }

    def _build_loss(self, term: Term) -> nn.Module:
        """The loss module; one for each common level if it works on features."""
        kind, arguments = LOSSES[term.name], dict(term.arguments or {})
        if "student_feature" not in self._inputs[term.name]:
            return kind(**arguments)
        sized = "channels" in inspect.signature(kind).parameters
        return nn.ModuleList(
            kind(**arguments, **({"channels": self._teacher.feature_channels[level]} if sized else {}))
            for _, level in self.pairing.levels
        )

    def _build_aligners(self, name: str) -> nn.ModuleList | None:
        student, teacher = self._student, self._teacher
        if "student_feature" in self._inputs[name]:
            return nn.ModuleList(
                make_aligner(vars(LOSSES[name])["aligner"], student.feature_channels[s], teacher.feature_channels[t])
                for s, t in self.pairing.levels
            )
        if "crossed_logits" in self._inputs[name]:
            return nn.ModuleList(
                nn.ModuleList(
                    make_aligner("linear", *channels)
                    for channels in zip(student.stage_channels[s], teacher.stage_channels[t], strict=True)
                )
                for s, t in self.pairing.levels
            )
        return None

    def _check(self) -> None:
        """Refuse at the start what would only show as nonsense in the middle of a training run."""
        known = {*LEVEL_NAMES, *DENSE_NAMES, *MASK_NAMES, *CROSSED_NAMES}
        for name, inputs in self._inputs.items():
            unknown = [key for key in inputs if key not in known]
            if unknown:
                raise AdapterError(
                    f"Expected loss `{name}` to need only what a dense detector offers, but it needs {unknown}. "
                    "A sigmoid head has no softmax over classes: use `bckd` for its classes."
                )
            if NEEDS_CLASSES & set(inputs):
                self.pairing.check_classes(name)


def kept_for(student: DetectorAdapter, teacher: Teacher, terms: Sequence[Term], anchors: int) -> Kept:
    """What a cache must keep of a teacher, so that a student can learn from it by these terms.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.
        anchors: Most anchors of an image.

    Raises:
        AdapterError: If teacher and student share no level, or no classes by the given names.
    """
    pairing = Pairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
    names = {name for term in terms for name in loss_inputs(term.name)}
    return Kept.needed(names, [level for _, level in pairing.levels], anchors)


def loss_inputs(name: str) -> tuple[str, ...]:
    """Names of the tensors that a loss asks for."""
    return tuple(inspect.signature(LOSSES[name].forward).parameters)[1:]


def _pick(offered: Mapping[str, Any], wanted: Sequence[str], term: str) -> list[Any]:
    """The tensors of the wanted names, in their order."""
    missing = [name for name in wanted if name in MASK_NAMES and offered.get(name) is None]
    if missing:
        raise AdapterError(
            f"Expected teacher and student to be segmenters for `{term}`, but one of them has no {missing}. Leave `{term}` "
            "out, or take segmenters (such as yolo11n-seg.yaml)."
        )
    return [offered[name] for name in wanted]
