"""Binary classification and IoU distillation for dense detectors with sigmoid heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.boxes import check_boxes, generalized_iou
from detkd.ops import binary_kl
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def bckd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    *,
    class_gain: float = 1.0,
    box_gain: float = 4.0,
) -> Tensor:
    r"""Distil every class of every anchor as a binary problem, and the boxes where the two models disagree.

    .. math::
        \frac{1}{P} \Big[ g_c \sum_{a,c} |\sigma^t - \sigma^s| \, \mathrm{BCE}(s, \sigma^t)
        + g_b \sum_a \max_c |\sigma^t - \sigma^s| \, (1 - \mathrm{GIoU}(b^s, b^t)) \Big]

    where P, the number of positives, is :math:`\max(1, \sum_a \max_c \sigma^t)`: a trained teacher's scores stand for its
    assigner's, so no labels are needed. The box weight is held constant, or the student could lower its box loss by
    changing its classes.

    Args:
        student_logits: Class logits before the sigmoid, [B, C, A].
        teacher_logits: The same of the teacher; receives no gradient.
        student_boxes: Decoded boxes (x1, y1, x2, y2), [B, A, 4], in any unit shared with `teacher_boxes`.
        teacher_boxes: The same of the teacher; receives no gradient.
        class_gain: Weight of the classification part.
        box_gain: Weight of the localisation part.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        Yang et al.: Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection, ICCV 2023,
        arXiv:2308.14286.
    """
    check_boxes(student_logits, teacher_logits, student_boxes, teacher_boxes)
    teacher_logits, teacher_boxes = teacher_logits.detach(), teacher_boxes.detach()
    class_loss = binary_kl(student_logits, teacher_logits, beta=1.0, kind="bce", reduction="sum")
    teacher_scores = accumulate(teacher_logits).sigmoid()
    positives = teacher_scores.amax(1).sum().clamp(min=1.0) if teacher_scores.numel() else 1.0
    disagreement = (teacher_scores - accumulate(student_logits.detach()).sigmoid()).abs()
    box_weight = disagreement.amax(1) if disagreement.numel() else disagreement.sum(1)
    box_loss = (box_weight * (1 - generalized_iou(accumulate(student_boxes), accumulate(teacher_boxes)))).sum()
    return (class_gain * class_loss + box_gain * box_loss) / positives


class BCKD(nn.Module):
    """Module form of :func:`bckd`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, class_gain: float = 1.0, box_gain: float = 4.0) -> None:
        super().__init__()
        self.class_gain = class_gain
        self.box_gain = box_gain

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor
    ) -> Tensor:
        """Return the scalar loss; see :func:`bckd`."""
        return bckd(
            student_logits,
            teacher_logits,
            student_boxes,
            teacher_boxes,
            class_gain=self.class_gain,
            box_gain=self.box_gain,
        )
