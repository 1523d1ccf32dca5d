"""The distillation terms of a student and one teacher."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.adapters.base import TwoStageAdapter
from detkd.aligners import make_aligner
from detkd.detections import candidates, detect
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.pairing import Pairing
from detkd.places import check_fit, find_place, loss_inputs
from detkd.schedules import Schedule
from detkd.second_stage import classify, mask, with_regions
from detkd.teachers.packing import Kept
from detkd.types import Targets
from detkd.vocabulary import (
    DETECTED_NAMES,
    MASK_NAMES,
    REGION_MASK_NAMES,
    TEACHER_REGION_NAMES,
    completed,
    dense_tensors,
    level_tensors,
    region_mask_tensors,
    region_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from detkd.adapters.base import DetectorAdapter
    from detkd.teachers.base import Teacher
    from detkd.teachers.ensemble import EnsembleName
    from detkd.types import Detections, DetectorOutputs, MaskPredictions, RegionPredictions


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
        places: Where each loss works, by its name.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(self, student: DetectorAdapter, teacher: Teacher, terms: Sequence[Term]) -> None:
        super().__init__()
        self._student, self._teacher = student, teacher.adapter
        self.pairing = Pairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
        self._inputs = {term.name: loss_inputs(term.name) for term in terms}
        self.places = {name: find_place(name, inputs, student) for name, inputs in self._inputs.items()}
        for name, place in self.places.items():
            check_fit(name, place, self._inputs[name], student, teacher.adapter, self.pairing)
        self.losses = nn.ModuleDict({term.name: self._build_loss(term) for term in terms})
        self.aligners = nn.ModuleDict({name: aligners for name in self.losses if (aligners := self._build_aligners(name))})

    def forward(
        self,
        names: Collection[str],
        student: DetectorOutputs,
        teacher: DetectorOutputs,
        whole: DetectorOutputs,
        targets: Targets,
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term.

        Args:
            names: The terms to compute.
            student: The student's outputs, as `pairing` aligns them with the teacher's.
            teacher: The teacher's outputs, aligned with the student's.
            whole: The teacher's outputs in its own frame, with all levels and classes.
            targets: The labels of the batch.
            size: Height and width of the student's input in pixels.
        """
        places = {self.places[name] for name in names}
        inputs = {key for name in names for key in self._inputs[name]}
        levels = level_tensors(teacher, targets.boxes, size) if "levels" in places else []
        found = self._detected(whole, size) if inputs & DETECTED_NAMES else {}
        pairs = zip(student.dense, teacher.dense, strict=False)  # of end-to-end and other models, the common one
        dense = places & {"dense", "crossed"}
        heads = [dense_tensors(student, teacher, pair, targets.boxes, size) | found for pair in pairs] if dense else []
        regions = self._regions(inputs, student.regions, whole, targets, size) | found if "regions" in places else {}
        masks = self._masks(student.masks, whole, targets, size) if "masks" in places else {}
        terms = {}
        for name in names:
            loss, wanted, place = self.losses[name], self._inputs[name], self.places[name]
            if place == "levels":
                terms[name] = torch.stack(self._level_parts(name, student.features, levels)).sum()
            elif place == "crossed":
                terms[name] = loss(*_pick(heads[0] | self._crossed(student, whole), wanted, name))
            elif place in {"regions", "masks"}:
                terms[name] = loss(*_pick(regions if place == "regions" else masks, wanted, name))
            else:
                # Detections are labels of many anchors each, which a one-to-one head must not learn to repeat.
                taught = heads[:1] if DETECTED_NAMES & set(wanted) else heads
                terms[name] = torch.stack([loss(*_pick(head, wanted, name)) for head in taught]).mean()
        return terms

    def candidates(self, whole: DetectorOutputs, size: tuple[int, int]) -> Detections:
        """All boxes that the teacher considers, with the common classes, in the student's pixels.

        Args:
            whole: The teacher's outputs in its own frame.
            size: Height and width of the student's input in pixels.
        """
        return candidates(self.pairing.all_levels(self.with_regions(whole, size)))

    def with_regions(self, whole: DetectorOutputs, size: tuple[int, int]) -> DetectorOutputs:
        """The teacher's outputs with what its second stage, if it has one, says of its own proposals.

        Args:
            whole: The teacher's outputs in its own frame.
            size: Height and width of the student's input in pixels.
        """
        return with_regions(self._teacher, whole, self._teacher_size(size))

    def _detected(self, whole: DetectorOutputs, size: tuple[int, int]) -> dict[str, Tensor]:
        """What is offered under ``DETECTED_NAMES``."""
        found = detect(self.candidates(whole, size))
        return {"detected_boxes": found.boxes, "detected_scores": found.scores}

    def _regions(
        self,
        names: Collection[str],
        own: RegionPredictions | None,
        whole: DetectorOutputs,
        targets: Targets,
        size: tuple[int, int],
    ) -> dict[str, Any]:
        """What is offered under ``REGION_NAMES`` that any of the names asks for."""
        assert own is not None, "the distiller sees to it that a two-stage student has run its second stage"
        other = None
        if TEACHER_REGION_NAMES & set(names) and isinstance(self._teacher, TwoStageAdapter):
            proposals = [boxes * self.pairing.scale for boxes in own.proposals]
            other = self.pairing.teacher_regions(classify(self._teacher, whole, proposals, self._teacher_size(size)))
        return region_tensors(own, other, self._common(targets))

    def _masks(
        self, own: MaskPredictions | None, whole: DetectorOutputs, targets: Targets, size: tuple[int, int]
    ) -> dict[str, Any]:
        """What is offered under ``REGION_MASK_NAMES``."""
        teacher = self._teacher
        assert own is not None, "the distiller sees to it that a mask head has run"
        assert isinstance(teacher, TwoStageAdapter), "refused when the terms were checked"
        proposals = [boxes * self.pairing.scale for boxes in own.proposals]
        other = mask(teacher, whole, proposals, self._teacher_size(size))
        return region_mask_tensors(own, self.pairing.teacher_masks(other), self._common(targets))

    def _common(self, targets: Targets) -> Targets:
        return Targets(targets.boxes, self.pairing.common_classes(targets.classes))

    def _teacher_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return round(size[0] * self.pairing.scale), round(size[1] * self.pairing.scale)

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


def kept_for(
    student: DetectorAdapter, teacher: Teacher, terms: Sequence[Term], anchors: int, ensemble: EnsembleName = "mean"
) -> Kept:
    """What a cache must keep of a teacher, so that a student can learn from it by these terms.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.
        anchors: Most anchors of an image.
        ensemble: How the teacher is mixed with others; ``ca_mkd`` asks what it detects.

    Raises:
        AdapterError: If teacher and student share no level, or no classes by the given names.
    """
    pairing = Pairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
    inputs = {term.name: loss_inputs(term.name) for term in terms}
    names = {name for wanted in inputs.values() for name in wanted}
    levels: Sequence[int] = [level for _, level in pairing.levels] if "teacher_feature" in names else []
    regions = {name for term, wanted in inputs.items() if find_place(term, wanted, student) == "regions" for name in wanted}
    if isinstance(teacher.adapter, TwoStageAdapter) and (
        ensemble == "ca_mkd" or regions & TEACHER_REGION_NAMES or names & {*DETECTED_NAMES, *REGION_MASK_NAMES}
    ):
        levels = range(len(teacher.adapter.strides))  # its second stage runs on what the cache holds
    return Kept.needed(names, levels, anchors)


def _pick(offered: Mapping[str, Any], wanted: Sequence[str], term: str) -> list[Any]:
    """The tensors of the wanted names, in their order."""
    missing = [name for name in wanted if name in MASK_NAMES and offered.get(name) is None]
    if missing:
        raise AdapterError(
            f"Expected teacher and student to be segmenters for `{term}`, but one of them has no {missing}. Leave `{term}` "
            "out, or take segmenters (such as yolo11n-seg.yaml)."
        )
    return [offered[name] for name in wanted]
