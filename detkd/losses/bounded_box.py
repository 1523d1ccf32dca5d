"""Boxes of a second stage, bounded by the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.boxes import encode_boxes
from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def bounded_box(
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    matched_boxes: Tensor,
    proposals: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.0,
) -> Tensor:
    r"""Pull the student's boxes to the labelled ones, until they are better than the teacher's by a margin.

    .. math::
        \frac{1}{R} \sum_r e^s_r \, [e^s_r + m > e^t_r], \qquad e_r = \| d(b_r) - d(y_r) \|^2

    with d the offsets from the proposal (:func:`detkd.boxes.encode_boxes`), y the labelled box and R the number of rows
    that count, at least 1. A teacher's regression may point away from the label, so it is a bound and no target.

    Args:
        student_boxes: Each region's box as refined by the student, (x1, y1, x2, y2), [R, 4].
        teacher_boxes: The same of the teacher; receives no gradient.
        matched_boxes: The labelled box of each region, [R, 4].
        proposals: The regions that both models refine, [R, 4].
        labels: Class of each region, [R]; rows of label 0 (background) or less (unknown) do not count, nor do rows whose
            proposal or labelled box has no area.
        margin: m ≥ 0, in squared offsets.

    Returns:
        A float32 scalar; 0 if no row counts.

    Raises:
        ArgumentError: If the shapes do not fit each other or the margin is negative.

    Source:
        Chen et al.: Learning Efficient Object Detection Models with Knowledge Distillation, NeurIPS 2017.
    """
    regions = labels.shape[0] if labels.ndim == 1 else -1
    for name, boxes in (
        ("student_boxes", student_boxes),
        ("teacher_boxes", teacher_boxes),
        ("matched_boxes", matched_boxes),
        ("proposals", proposals),
    ):
        if tuple(boxes.shape) != (regions, 4):
            raise ArgumentError(
                f"Expected argument `{name}` to be [R, 4] for labels [R], but got {tuple(boxes.shape)} for "
                f"{tuple(labels.shape)}."
            )
    if not margin >= 0:
        raise ArgumentError(f"Expected argument `margin` to be at least 0, but got {margin}.")
    references, truth = accumulate(proposals.detach()), accumulate(matched_boxes.detach())
    target = encode_boxes(truth, references)
    student_error = _squared(student_boxes, references, target)
    exceeds = student_error + margin > _squared(teacher_boxes.detach(), references, target)
    counts = (labels > 0) & _has_area(references) & _has_area(truth)
    loss = torch.where(counts & exceeds, student_error, student_error.new_zeros(())).sum()
    return loss / counts.sum().clamp(min=1)


def _squared(boxes: Tensor, references: Tensor, target: Tensor) -> Tensor:
    return (encode_boxes(accumulate(boxes), references) - target).square().sum(-1)


def _has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


class BoundedBox(nn.Module):
    """Module form of :func:`bounded_box`."""

    default_weight: ClassVar[float] = 0.5

    def __init__(self, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self,
        student_boxes: Tensor,
        teacher_boxes: Tensor,
        matched_boxes: Tensor,
        proposals: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Return the scalar loss; see :func:`bounded_box`."""
        return bounded_box(student_boxes, teacher_boxes, matched_boxes, proposals, labels, margin=self.margin)
