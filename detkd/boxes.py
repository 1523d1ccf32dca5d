"""Box geometry; boxes are (x1, y1, x2, y2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-7


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes paired by broadcasting, [..., 4] and [..., 4] to [...]."""
    overlap, union = _overlap_and_union(boxes, others)
    return overlap / (union + EPS)


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of boxes paired by broadcasting, in (-1, 1] (Rezatofighi et al. 2019, arXiv:1902.09630)."""
    overlap, union = _overlap_and_union(boxes, others)
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes.unbind(-1), others.unbind(-1)
    hull = _area(torch.minimum(x1, u1), torch.minimum(y1, v1), torch.maximum(x2, u2), torch.maximum(y2, v2))
    return overlap / (union + EPS) - (hull - union) / (hull + EPS)


def contains(boxes: Tensor, points: Tensor) -> Tensor:
    """Whether points (x, y) lie inside boxes, borders excluded; paired by broadcasting, [..., 4] and [..., 2] to [...]."""
    (x1, y1, x2, y2), (x, y) = boxes.unbind(-1), points.unbind(-1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def encode_boxes(
    boxes: Tensor, references: Tensor, weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
) -> Tensor:
    """Offsets of boxes from reference boxes as two-stage detectors regress them, paired by broadcasting.

    The shift of the centre in sizes of the reference, then the logarithm of the ratio of sizes: (dx, dy, dw, dh) · weights.
    A side shorter than 1e-7 counts as that long, so that boxes without area have finite offsets.

    Args:
        boxes: Boxes in float32 or float64, [..., 4].
        references: What they are measured from, such as proposals, [..., 4].
        weights: Factors of the four offsets; the default is what Faster R-CNN heads regress.

    Returns:
        Offsets, [..., 4].

    Source:
        Girshick et al.: Rich Feature Hierarchies, CVPR 2014, arXiv:1311.2524.
    """
    (x, y, w, h), (u, v, p, q) = _centres_and_sizes(boxes), _centres_and_sizes(references)
    offsets = ((x - u) / p, (y - v) / q, (w / p).log(), (h / q).log())
    return torch.stack([offset * weight for offset, weight in zip(offsets, weights, strict=True)], -1)


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
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes.unbind(-1), others.unbind(-1)
    overlap = _area(torch.maximum(x1, u1), torch.maximum(y1, v1), torch.minimum(x2, u2), torch.minimum(y2, v2))
    return overlap, _area(x1, y1, x2, y2) + _area(u1, v1, u2, v2) - overlap


def _area(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
    """Area of boxes given by their sides: to put these together again would copy what broadcasting has made large."""
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1).clamp(min=EPS), (y2 - y1).clamp(min=EPS)
