"""The distillation terms of a detector and one teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.adapters.base import ClassifierAdapter, SegmenterAdapter, TwoStageAdapter
from detkd.aligners import make_aligner
from detkd.detections import candidates, detect
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.pairing import Pairing
from detkd.places import check_fit, find_place, loss_inputs
from detkd.second_stage import classify, mask, with_regions
from detkd.teachers.ensemble import label_loss, scale_gradients
from detkd.teachers.packing import Kept
from detkd.terms import level_aligners, level_losses, level_parts
from detkd.types import Targets
from detkd.vocabulary import (
    DETECTED_NAMES,
    MASK_NAMES,
    REGION_MASK_NAMES,
    TEACHER_DENSE_NAMES,
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
    from detkd.terms import Term
    from detkd.types import Detections, DetectorOutputs, MaskPredictions, RegionPredictions


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
        self._student, self._teacher = student, detector_of(teacher)
        self.pairing = Pairing(student, self._teacher, classes=teacher.classes, scale=teacher.scale)
        self._inputs = {term.name: loss_inputs(term.name) for term in terms}
        self.places = {name: find_place(name, inputs, student) for name, inputs in self._inputs.items()}
        for name, place in self.places.items():
            check_fit(name, place, self._inputs[name], student, self._teacher, self.pairing)
        # Where anchors lie only a forward pass tells, the first of which is the distiller's trial.
        self._placed = {name for name, place in self.places.items() if place == "dense"} & {
            name for name, inputs in self._inputs.items() if TEACHER_DENSE_NAMES & set(inputs)
        }
        self.losses = nn.ModuleDict({term.name: self._build_loss(term) for term in terms})
        self.aligners = nn.ModuleDict({name: aligners for name in self.losses if (aligners := self._build_aligners(name))})

    def check_confidence(self) -> None:
        """Refuse to judge the teacher by the labels where they share no classes; see :class:`detkd.terms.Terms`."""
        self.pairing.check_classes("ca_mkd")

    def no_labels(self, images: Tensor) -> Targets:
        """The labels of a batch without any object."""
        return Targets(images.new_zeros(len(images), 0, 4), images.new_zeros(len(images), 0, dtype=torch.long))

    def prepare(
        self, teacher: DetectorOutputs, size: tuple[int, int], names: Collection[str], *, judged: bool
    ) -> DetectorOutputs:
        """The teacher's outputs, with its second stage run once for all if it is judged by what it finds."""
        del names
        return self.with_regions(teacher, size) if judged else teacher

    def confidence_loss(self, teacher: DetectorOutputs, targets: Targets, size: tuple[int, int]) -> Tensor:
        """How badly the teacher finds the labelled objects of each image, [B]."""
        return label_loss(self.candidates(teacher, size), self._common(targets))

    def weighed_at(self, names: Collection[str], student: DetectorOutputs) -> dict[str, tuple[Tensor, ...]]:
        """Where the neck meets the head; see :class:`detkd.terms.Terms`."""
        return dict.fromkeys(names, student.features)

    def forward(
        self,
        names: Collection[str],
        student: DetectorOutputs,
        teacher: DetectorOutputs,
        targets: Targets,
        size: tuple[int, int],
        factors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term; see :class:`detkd.terms.Terms`."""
        places = {self.places[name] for name in names}
        inputs = {key for name in names for key in self._inputs[name]}
        if places & {"regions", "masks"}:  # training has shown the student regions, a trial has not
            student = with_regions(self._student, student, size, masks=True)
        whole = teacher  # in its own frame, with all levels and classes
        student, teacher = self.pairing.align(student, whole)
        while self._placed:
            self.pairing.check_points(self._placed.pop(), student, teacher)
        if factors is not None:
            student = scale_gradients(student, factors)
        levels = level_tensors(teacher, targets.boxes, size) if "levels" in places else []
        detected = self._detected(whole, size) if inputs & DETECTED_NAMES else {}
        pairs = zip(student.dense, teacher.dense, strict=False)  # of end-to-end and other models, the common one
        dense = places & {"dense", "crossed"}
        heads = [dense_tensors(student, teacher, pair, targets.boxes, size) | detected for pair in pairs] if dense else []
        regions = self._regions(inputs, student.regions, whole, targets, size) | detected if "regions" in places else {}
        masks = self._masks(student.masks, whole, targets, size) if "masks" in places else {}
        terms = {}
        for name in names:
            loss, wanted, place = self.losses[name], self._inputs[name], self.places[name]
            if place == "levels":
                parts = level_parts(loss, self.aligners[name], student.features, levels, wanted)
                terms[name] = torch.stack(parts).sum()
            elif place == "crossed":
                terms[name] = loss(*_pick(heads[0] | self._crossed(student, whole), wanted, name))
            elif place in {"regions", "masks"}:
                terms[name] = loss(*_pick(regions if place == "regions" else masks, wanted, name))
            else:
                # Detections are labels of many anchors each, which a one-to-one head must not learn to repeat.
                taught = heads[:1] if DETECTED_NAMES & set(wanted) else heads
                found = [loss(*_pick(head, wanted, name)) for head in taught]
                terms[name] = _over_heads(found, student.head_weights)
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
        if "student_feature" not in self._inputs[term.name]:
            return LOSSES[term.name](**dict(term.arguments or {}))
        return level_losses(term, [self._teacher.feature_channels[level] for _, level in self.pairing.levels])

    def _build_aligners(self, name: str) -> nn.ModuleList | None:
        student, teacher = self._student, self._teacher
        if "student_feature" in self._inputs[name]:
            return level_aligners(name, student, teacher, self.pairing.levels)
        if "crossed_logits" in self._inputs[name]:
            return nn.ModuleList(
                nn.ModuleList(
                    make_aligner("linear", *channels)
                    for channels in zip(student.stage_channels[s], teacher.stage_channels[t], strict=True)
                )
                for s, t in self.pairing.levels
            )
        return None


def _over_heads(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean over heads, weighed as the task loss weighs them: the one that is used in the end learns most in the end."""
    if len(values) == 1:
        return values[0].float()
    shares = weights[: len(values)] or [1.0] * len(values)
    return torch.stack([value.float() * share for value, share in zip(values, shares, strict=True)]).sum() / sum(shares)


def detector_of(teacher: Teacher) -> DetectorAdapter:
    """The adapter of a detector's teacher.

    Raises:
        AdapterError: If the teacher is none.
    """
    if isinstance(teacher.adapter, SegmenterAdapter):
        raise AdapterError(
            f"Expected a detector as teacher of a detector, but {type(teacher.adapter.model).__name__} is a segmenter. "
            "Segmenters teach segmenters; detectors teach both."
        )
    if isinstance(teacher.adapter, ClassifierAdapter):
        raise AdapterError(
            f"Expected a detector as teacher of a detector, but {type(teacher.adapter.model).__name__} is a classifier. "
            "Classifiers teach classifiers."
        )
    return teacher.adapter


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
    adapter = detector_of(teacher)
    pairing = Pairing(student, adapter, classes=teacher.classes, scale=teacher.scale)
    inputs = {term.name: loss_inputs(term.name) for term in terms}
    names = {name for wanted in inputs.values() for name in wanted}
    levels: Sequence[int] = [level for _, level in pairing.levels] if "teacher_feature" in names else []
    regions = {name for term, wanted in inputs.items() if find_place(term, wanted, student) == "regions" for name in wanted}
    if isinstance(adapter, TwoStageAdapter) and (
        ensemble == "ca_mkd" or regions & TEACHER_REGION_NAMES or names & {*DETECTED_NAMES, *REGION_MASK_NAMES}
    ):
        levels = range(len(adapter.strides))  # its second stage runs on what the cache holds
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
