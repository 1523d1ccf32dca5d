"""How a teacher's outputs are brought to a student's: common levels, mapped classes, another input size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from detkd.errors import AdapterError
from detkd.matching import check_grids, check_one_to_one, match_classes, match_levels, no_common_classes, pick_classes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from detkd.adapters.base import DetectorAdapter
    from detkd.types import DensePredictions, DetectorOutputs, MaskPredictions, RegionPredictions

ANCHOR_TOLERANCE = 0.02  # anchors are rounded to whole pixels


class Pairing:
    """Fits the outputs of two detectors to each other.

    Levels meet where one step covers as many of the student's pixels; what lies on other levels is left out. Classes meet
    by name.

    Args:
        student: Adapter of the student.
        teacher: Adapter of the teacher.
        classes: Teacher's class for a student's class, by name, for those whose names differ. If given, classes that
            the teacher lacks are not distilled; else every class of the student must be one of the teacher's.
        scale: Side of the teacher's input as a multiple of the student's: a teacher of a larger input sees more detail.

    Attributes:
        levels: Index in the student's levels and in the teacher's of every pair that meets.

    Raises:
        AdapterError: If no level meets, or `classes` names a class that is not there.
    """

    def __init__(
        self,
        student: DetectorAdapter,
        teacher: DetectorAdapter,
        *,
        classes: Mapping[str, str] | None = None,
        scale: float = 1.0,
    ) -> None:
        self.scale = scale
        self.levels = match_levels(student.strides, teacher.strides, scale)
        self._keep = [level for level, _ in self.levels], [level for _, level in self.levels]
        self._names = student.class_names, teacher.class_names
        self._adapters = student, teacher
        self._classes = match_classes(student.class_names, teacher.class_names, classes)

    def check_classes(self, term: str) -> None:
        """Refuse a term that needs common classes where there are none.

        Raises:
            AdapterError: Listing the classes of both.
        """
        if self._classes is None:
            raise no_common_classes(*self._names, term, "distil what needs no classes (`pkd`, `cross_kd`)")

    def check_exclusive_classes(self, term: str) -> None:
        """Refuse a term on classes that exclude each other where several of them are one of the teacher's.

        Raises:
            AdapterError: Naming those.
        """
        self.check_classes(term)
        if self._classes is not None:
            check_one_to_one(self._classes[1], self._names[1])

    def check_points(self, term: str, student: DetectorOutputs, teacher: DetectorOutputs) -> None:
        """Refuse a term that compares what both say at each anchor, where anchors of one shape lie apart.

        Args:
            term: Its name.
            student: The student's outputs, aligned.
            teacher: The teacher's, aligned.

        Raises:
            AdapterError: Saying by how much.
        """
        apart = float((student.anchor_points - teacher.anchor_points).abs().max())
        if apart > 1:
            raise AdapterError(
                f"Expected teacher and student to have the same anchors for `{term}`, but those of "
                f"{type(self._adapters[1].model).__name__} lie up to {apart:.3g} pixels from the student's: distil "
                "features (`pkd`, `fgd`) or the teacher's detections (`detection_label`) instead."
            )

    def check_anchors(self, term: str) -> None:
        """Refuse a term that compares what both say at each anchor, where the anchors are not the same.

        Raises:
            AdapterError: Naming what differs.
        """
        student, teacher = self._adapters
        remedy = "distil features (`pkd`, `fgd`) or the teacher's detections (`detection_label`) instead."
        if student.dense != teacher.dense:
            raise AdapterError(
                f"Expected teacher and student to say the same at their anchors for `{term}`, but the student says "
                f"{student.dense} and the teacher {teacher.dense}: {remedy}"
            )
        for s, t in self.levels:
            own, other = student.anchor_shapes[s], teacher.anchor_shapes[t]
            if len(own) != len(other) or any(
                abs(a * self.scale - b) > ANCHOR_TOLERANCE * max(a, b, 1.0)
                for shapes in zip(own, other, strict=True)
                for a, b in zip(*shapes, strict=True)
            ):
                raise AdapterError(
                    f"Expected teacher and student to have the same anchors for `{term}`, but at stride "
                    f"{student.strides[s]} the student has {_round(own)} and the teacher {_round(other)}: {remedy}"
                )

    def common_classes(self, classes: Tensor) -> Tensor:
        """Positions of the student's class indices among the common classes, -1 for those that are not common."""
        own = None if self._classes is None else self._classes[0]
        if own is None:
            return classes
        place = torch.full((len(self._names[0]) + 1,), -1, device=classes.device)  # the last one is for -1, the padding
        place[torch.tensor(own, device=classes.device)] = torch.arange(len(own), device=classes.device)
        return place[classes]

    def align(self, student: DetectorOutputs, teacher: DetectorOutputs) -> tuple[DetectorOutputs, DetectorOutputs]:
        """Both outputs on the common levels, with equal anchors, classes in the same order, boxes in the student's pixels.

        Raises:
            AdapterError: If the grids of a level differ although their strides agree.
        """
        check_grids(student.features, teacher.features, self.levels)
        student_classes, teacher_classes = self._classes or (None, None)
        return (
            select(student, self._keep[0], student_classes, 1.0),
            select(teacher, self._keep[1], teacher_classes, self.scale),
        )

    def common_levels(self, teacher: DetectorOutputs) -> DetectorOutputs:
        """The teacher's outputs on the common levels, with all its classes, boxes in the student's pixels."""
        return select(teacher, self._keep[1], None, self.scale)

    def all_levels(self, teacher: DetectorOutputs) -> DetectorOutputs:
        """The teacher's outputs on all its levels, with the common classes, boxes in the student's pixels."""
        classes = self._classes[1] if self._classes is not None else None
        return select(teacher, range(len(teacher.features)), classes, self.scale)

    def teacher_regions(self, regions: RegionPredictions) -> RegionPredictions:
        """What the teacher says of regions, with the common classes, in the student's pixels."""
        return _select_regions(regions, self._classes[1] if self._classes is not None else None, self.scale)

    def teacher_masks(self, masks: MaskPredictions) -> MaskPredictions:
        """What the teacher's mask head says of regions, with the common classes, in the student's pixels."""
        return _select_masks(masks, self._classes[1] if self._classes is not None else None, self.scale)


def select(outputs: DetectorOutputs, levels: Sequence[int], classes: Sequence[int] | None, scale: float) -> DetectorOutputs:
    """Outputs of some levels and classes, in pixels of an input smaller by `scale`; nothing is copied that stays whole."""
    if len(levels) == len(outputs.features) and classes is None and scale == 1:
        return outputs
    positions = [feature.shape[2] * feature.shape[3] for feature in outputs.features]
    shapes = len(outputs.anchor_points) // max(sum(positions), 1)
    counts = [count * shapes for count in positions]
    index = None
    if len(levels) < len(counts):
        ranges = torch.arange(sum(counts), device=outputs.anchor_points.device).split(counts)
        index = torch.cat([ranges[level] for level in levels])

    def anchors(tensor: Tensor, dim: int) -> Tensor:
        return tensor if index is None else tensor.index_select(dim, index)

    def dense(head: DensePredictions, classes: Sequence[int] | None = classes) -> DensePredictions:
        return replace(
            head,
            logits=anchors(pick_classes(head.logits, classes, background=head.softmax), -1),
            boxes=anchors(head.boxes, 1) / scale,
            bins=None if head.bins is None else anchors(head.bins, -1),
            coefficients=None if head.coefficients is None else anchors(head.coefficients, -1),
            known=None if head.known is None else anchors(head.known, -1),
        )

    return replace(
        outputs,
        features=tuple(outputs.features[level] for level in levels),
        heads=tuple(dense(head) for head in outputs.heads),
        objectness=None if outputs.objectness is None else dense(outputs.objectness, None),
        regions=None if outputs.regions is None else _select_regions(outputs.regions, classes, scale),
        masks=None if outputs.masks is None else _select_masks(outputs.masks, classes, scale),
        anchor_points=anchors(outputs.anchor_points, 0) / scale,
        stages=tuple(outputs.stages[level] for level in levels) if outputs.stages else (),
    )


def _select_regions(regions: RegionPredictions, classes: Sequence[int] | None, scale: float) -> RegionPredictions:
    whole = classes is None or regions.boxes.shape[1] == 1
    return replace(
        regions,
        proposals=tuple(boxes / scale for boxes in regions.proposals),
        logits=pick_classes(regions.logits, classes, background=True),
        boxes=(regions.boxes if whole else regions.boxes[:, list(classes or ())]) / scale,
    )


def _select_masks(masks: MaskPredictions, classes: Sequence[int] | None, scale: float) -> MaskPredictions:
    return replace(
        masks,
        proposals=tuple(boxes / scale for boxes in masks.proposals),
        logits=pick_classes(masks.logits, classes, background=False),
    )


def _round(shapes: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    return [(round(width), round(height)) for width, height in shapes]
