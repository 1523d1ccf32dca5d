"""Box geometry; boxes are (x1, y1, x2, y2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-7


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes paired by broadcasting, [..., 4] and [..., 4] to [...]."""
    overlap, union = _overlap_and_union(boxes, others)
    return overlap / (union + EPS)


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of boxes paired by broadcasting, in (-1, 1] (Rezatofighi et al. 2019, arXiv:1902.09630)."""
    overlap, union = _overlap_and_union(boxes, others)
    hull = torch.cat((torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])), -1)
    hull_area = _area(hull)
    return overlap / (union + EPS) - (hull_area - union) / (hull_area + EPS)


def check_boxes(student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor) -> None:
    """Refuse logits that are not [B, C, A] in both models, and boxes that are not [B, A, 4] for them."""
    if student_logits.ndim != 3 or teacher_logits.shape != student_logits.shape:
        raise ArgumentError(
            f"Expected argument `teacher_logits` to be [B, C, A] like the student's {tuple(student_logits.shape)}, but got "
            f"{tuple(teacher_logits.shape)}."
        )
    batch, _, anchors = student_logits.shape
    for name, boxes in (("student_boxes", student_boxes), ("teacher_boxes", teacher_boxes)):
        if tuple(boxes.shape) != (batch, anchors, 4):
            raise ArgumentError(
                f"Expected argument `{name}` to be [B, A, 4] for logits [B, C, A], but got {tuple(boxes.shape)} for "
                f"{tuple(student_logits.shape)}. Decode both models' boxes on the same anchors."
            )


def _overlap_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(boxes[..., :2], others[..., :2])
    bottom_right = torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = _area(torch.cat((top_left, bottom_right), -1))
    return overlap, _area(boxes) + _area(others) - overlap
