"""The names by which a loss may ask for tensors: the parameters of its ``forward``.

Level names are offered once for each common level, dense names once for each head that both models have. B images, C
common classes, A anchors of the common levels, R bins of a box side, M mask prototypes; boxes are (x1, y1, x2, y2) in
pixels of the student's input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from detkd.types import DensePredictions, DetectorOutputs

LEVEL_NAMES = {
    "student_feature": "feature map behind the loss's aligner, [B, C_t, H, W]",
    "teacher_feature": "feature map, [B, C_t, H, W]",
    "teacher_scores": "best class probability at each position, [B, 1, H, W]",
    "target_boxes": "labelled boxes, padded with zeros to the largest count, [B, M, 4]",
    "stride": "pixels of one step on the map, a float",
}
DENSE_NAMES = {
    "student_logits": "class logits before the sigmoid, [B, C, A]",
    "teacher_logits": "class logits before the sigmoid, [B, C, A]",
    "student_boxes": "decoded boxes, [B, A, 4]",
    "teacher_boxes": "decoded boxes, [B, A, 4]",
    "student_bins": "logits of each box side's distribution, [B, 4, R, A], or None",
    "teacher_bins": "logits of each box side's distribution, [B, 4, R, A], or None",
    "teacher_confidence": "best class probability at each anchor, [B, A]",
    "anchor_points": "centres of the anchors, [A, 2]",
    "target_boxes": "labelled boxes, padded with zeros to the largest count, [B, M, 4]",
    "image_size": "height and width of the student's input in pixels",
}
MASK_NAMES = {
    "student_coefficients": "factors of the mask prototypes, [B, M, A]",
    "teacher_coefficients": "factors of the mask prototypes, [B, M, A]",
    "student_prototypes": "mask prototypes, [B, M, H, W]",
    "teacher_prototypes": "mask prototypes, [B, M, H, W]",
}
CROSSED_NAMES = {
    "crossed_logits": "class logits of the teacher's head on the student's features, [B, all classes, A]",
    "crossed_boxes": "decoded boxes of the teacher's head on the student's features, [B, A, 4]",
    "whole_teacher_logits": "class logits over all of the teacher's classes, [B, all classes, A]",
}
NEEDS_CLASSES = {"student_logits", "teacher_logits"}  # in the same order in both


def dense_tensors(
    student: DetectorOutputs,
    teacher: DetectorOutputs,
    heads: tuple[DensePredictions, DensePredictions],
    target_boxes: Tensor,
    image_size: tuple[int, int],
) -> dict[str, Any]:
    """What is offered under ``DENSE_NAMES`` and ``MASK_NAMES`` for one pair of heads."""
    own, other = heads[0], completed(heads[1], heads[0])
    return {
        "student_logits": own.logits,
        "teacher_logits": other.logits,
        "student_boxes": own.boxes,
        "teacher_boxes": other.boxes,
        "student_bins": own.bins,
        "teacher_bins": other.bins,
        "teacher_confidence": confidence(other),
        "anchor_points": student.anchor_points,
        "target_boxes": target_boxes,
        "image_size": image_size,
        "student_coefficients": own.coefficients,
        "teacher_coefficients": other.coefficients,
        "student_prototypes": student.prototypes,
        "teacher_prototypes": teacher.prototypes,
    }


def level_tensors(teacher: DetectorOutputs, target_boxes: Tensor, image_size: tuple[int, int]) -> list[Mapping[str, Any]]:
    """What is offered under ``LEVEL_NAMES`` on each level, but the student's feature, which waits for an aligner."""
    sizes = [feature.shape[2:] for feature in teacher.features]
    scores = confidence(teacher.heads[0])[:, None].split([h * w for h, w in sizes], -1)
    return [
        {
            "teacher_feature": feature,
            "teacher_scores": part.unflatten(-1, tuple(size)),
            "target_boxes": target_boxes,
            "stride": image_size[0] / size[0],
        }
        for feature, part, size in zip(teacher.features, scores, sizes, strict=True)
    ]


def completed(teacher: DensePredictions, student: DensePredictions) -> DensePredictions:
    """The teacher's predictions with the student's own boxes where a cache has none: there is nothing to learn there."""
    if teacher.known is None:
        return teacher
    boxes = torch.where(teacher.known[..., None], teacher.boxes, student.boxes.detach())
    bins = teacher.bins
    if bins is not None and student.bins is not None and bins.shape == student.bins.shape:
        bins = torch.where(teacher.known[:, None, None], bins, student.bins.detach())
    return replace(teacher, boxes=boxes, bins=bins)


def confidence(head: DensePredictions) -> Tensor:
    """Best class probability at each anchor, [B, A]."""
    with torch.no_grad():
        return head.logits.float().amax(1).sigmoid()
