"""A classifier's decisions as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor


def class_label(student_logits: Tensor, teacher_logits: Tensor, *, threshold: float = 0.0) -> Tensor:
    r"""Cross-entropy on the class that the teacher decides for, where it is sure enough.

    .. math:: \frac{1}{R} \sum_{r: \max_c p^t_{rc} \ge \tau} -\log p^s_{r, \arg\max_c p^t_{rc}}

    where R counts the rows of the sum, at least 1.

    Args:
        student_logits: Logits of a softmax, [N, C].
        teacher_logits: The same of the teacher; receives no gradient.
        threshold: Probability τ that the teacher's best class must reach, in [0, 1); 0 takes every row.

    Returns:
        A float32 scalar; 0 if no row counts.

    Raises:
        ArgumentError: If the shapes do not fit each other or the threshold is out of range.

    Source:
        Decisions of a teacher as labels: Lee: Pseudo-Label, ICML 2013 workshop; as hard distillation: Touvron et al. 2021,
        arXiv:2012.12877, section 4.
    """
    check_pair(student_logits, teacher_logits)
    if student_logits.ndim != 2:
        raise ArgumentError(f"Expected argument `student_logits` to be [N, C], but got {tuple(student_logits.shape)}.")
    if not 0 <= threshold < 1:
        raise ArgumentError(f"Expected argument `threshold` to lie in [0, 1), but got {threshold}.")
    if not student_logits.numel():
        return accumulate(student_logits).sum()
    best, decided = accumulate(teacher_logits.detach()).softmax(1).max(1)
    sure = best >= threshold
    losses = F.cross_entropy(accumulate(student_logits), decided, reduction="none")
    return losses.where(sure, losses.new_zeros(())).sum() / sure.sum().clamp(min=1)


class ClassLabel(nn.Module):
    """Module form of :func:`class_label`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, student_softmax_logits: Tensor, teacher_softmax_logits: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`class_label`."""
        return class_label(student_softmax_logits, teacher_softmax_logits, threshold=self.threshold)
