"""The teacher's decisions as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import nn

from detkd.boxes import check_boxes, generalized_iou
from detkd.losses._labels import check_threshold
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def hard_label(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    *,
    threshold: float = 0.5,
    class_gain: float = 1.0,
    box_gain: float = 4.0,
) -> Tensor:
    r"""Train on what the teacher decides: a class where its probability reaches a threshold, background elsewhere.

    .. math::
        \frac{1}{P} \Big[ g_c \sum_{a,c} \mathrm{BCE}(s, [\sigma^t \ge \tau])
        + g_b \sum_{a: \max_c \sigma^t \ge \tau} (1 - \mathrm{GIoU}(b^s, b^t)) \Big]

    where P is the number of anchors that the teacher decides on, at least 1.

    Args:
        student_logits: Class logits before the sigmoid, [B, C, A].
        teacher_logits: The same of the teacher; receives no gradient.
        student_boxes: Decoded boxes (x1, y1, x2, y2), [B, A, 4], in any unit shared with `teacher_boxes`.
        teacher_boxes: The same of the teacher; receives no gradient.
        threshold: Probability τ in (0, 1).
        class_gain: Weight of the classification part.
        box_gain: Weight of the localisation part.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes do not fit each other or the threshold is out of range.

    Source:
        Decisions of a teacher as labels: Lee: Pseudo-Label, ICML 2013 workshop; GIoU: Rezatofighi et al. 2019,
        arXiv:1902.09630.
    """
    check_boxes(student_logits, teacher_logits, student_boxes, teacher_boxes)
    check_threshold(threshold)
    decided = accumulate(teacher_logits.detach()).sigmoid() >= threshold
    positive = decided.any(1)
    count = positive.sum().clamp(min=1)
    class_loss = F.binary_cross_entropy_with_logits(
        accumulate(student_logits), decided.to(accumulate(student_logits).dtype), reduction="sum"
    )
    overlap = generalized_iou(accumulate(student_boxes), accumulate(teacher_boxes.detach()))
    box_loss = ((1 - overlap) * positive).sum()
    return (class_gain * class_loss + box_gain * box_loss) / count


class HardLabel(nn.Module):
    """Module form of :func:`hard_label`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, threshold: float = 0.5, class_gain: float = 1.0, box_gain: float = 4.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.class_gain = class_gain
        self.box_gain = box_gain

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor
    ) -> Tensor:
        """Return the scalar loss; see :func:`hard_label`."""
        return hard_label(
            student_logits,
            teacher_logits,
            student_boxes,
            teacher_boxes,
            threshold=self.threshold,
            class_gain=self.class_gain,
            box_gain=self.box_gain,
        )
