"""Feature distillation where the teacher sees objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def score_l2(student_feature: Tensor, teacher_feature: Tensor, teacher_scores: Tensor) -> Tensor:
    r"""Mean squared difference of features, each position weighted by the teacher's best class score there.

    .. math:: \frac{1}{C \sum_{n,i} w_{n,i}} \sum_{n,i} w_{n,i} \, \| f^s_{n,i} - f^t_{n,i} \|_2^2

    with the score w at position i of image n, and C channels.

    Args:
        student_feature: Feature map of the student behind its aligner, [N, C, H, W].
        teacher_feature: Feature map of the teacher, same shape; receives no gradient.
        teacher_scores: Probability of the best class at each position, [N, 1, H, W]; receives no gradient.

    Returns:
        A float32 scalar; 0 where all scores are 0.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        What ultralytics 8.4 computes for ``distill_model=`` on each level of the neck (there with an aligner of two 1×1
        convolutions and a gain of 6); written anew from that description.
    """
    n, c, h, w = student_feature.shape if student_feature.ndim == 4 else (0, 0, 0, 0)
    if student_feature.ndim != 4 or teacher_feature.shape != student_feature.shape:
        raise ArgumentError(
            f"Expected argument `teacher_feature` to have the student's shape {tuple(student_feature.shape)} = "
            f"[N, C, H, W], but got {tuple(teacher_feature.shape)}. Align channels with a 1×1 convolution first."
        )
    if tuple(teacher_scores.shape) != (n, 1, h, w):
        raise ArgumentError(
            f"Expected argument `teacher_scores` to be [N, 1, H, W] = {(n, 1, h, w)}, but got "
            f"{tuple(teacher_scores.shape)}."
        )
    scores = accumulate(teacher_scores.detach())
    squared = (accumulate(student_feature) - accumulate(teacher_feature.detach())).square()
    return (squared * scores).sum() / (scores.sum() * c).clamp(min=1e-9)


class ScoreL2(nn.Module):
    """Module form of :func:`score_l2`."""

    default_weight: ClassVar[float] = 6.0
    aligner: ClassVar[str] = "mlp"

    def forward(self, student_feature: Tensor, teacher_feature: Tensor, teacher_scores: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`score_l2`."""
        return score_l2(student_feature, teacher_feature, teacher_scores)
