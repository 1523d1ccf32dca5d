"""Distillation through the teacher's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.losses.bckd import bckd

if TYPE_CHECKING:
    from torch import Tensor


class CrossKD(nn.Module):
    r"""BCKD between what the teacher's head says of the student's features and of its own.

    .. math:: L_{BCKD} \big( h_t(A(f^s)), \; h_t(f^t) \big)

    with the teacher's head h, the aligner A and the loss of :func:`detkd.losses.bckd`.

    The student's feature map behind the first layer of its head goes, through an aligner, into the rest of the teacher's
    frozen head. The student's own predictions are left to the labels, so that teacher and labels never contradict each
    other, and teacher and student may have unlike classes.

    Args:
        class_gain: Weight of the classification part.
        box_gain: Weight of the localisation part.

    Source:
        Wang et al.: CrossKD: Cross-Head Knowledge Distillation for Object Detection, CVPR 2024, arXiv:2306.11369, with the
        terms of :func:`detkd.losses.bckd`.
    """

    default_weight: ClassVar[float] = 1.0

    def __init__(self, class_gain: float = 1.0, box_gain: float = 4.0) -> None:
        super().__init__()
        self.class_gain = class_gain
        self.box_gain = box_gain

    def forward(
        self, crossed_logits: Tensor, whole_teacher_logits: Tensor, crossed_boxes: Tensor, teacher_boxes: Tensor
    ) -> Tensor:
        """Return the scalar loss.

        Args:
            crossed_logits: Class logits of the teacher's head on the student's features, [B, C, A].
            whole_teacher_logits: The teacher's own over all its classes; receives no gradient.
            crossed_boxes: Decoded boxes of the teacher's head on the student's features, [B, A, 4].
            teacher_boxes: The teacher's own; receives no gradient.
        """
        return bckd(
            crossed_logits,
            whole_teacher_logits,
            crossed_boxes,
            teacher_boxes,
            class_gain=self.class_gain,
            box_gain=self.box_gain,
        )
