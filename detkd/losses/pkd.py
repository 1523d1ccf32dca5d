"""Feature distillation by Pearson correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.ops import standardized_mse

if TYPE_CHECKING:
    from torch import Tensor


def pkd(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    r"""Half the mean squared difference of features standardised per channel, :math:`1 - r` of Pearson's correlation.

    Standardising over batch and positions lets the student follow the pattern of a channel without its scale and offset,
    so that teacher and student may be of different families.

    Args:
        student_feature: Feature map of the student, [N, C, H, W].
        teacher_feature: Feature map of the teacher, same shape; receives no gradient.

    Returns:
        A float32 scalar in [0, 2].

    Raises:
        ArgumentError: If the shapes differ; an aligner must bring channels together first.

    Source:
        Cao et al.: PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient,
        NeurIPS 2022, arXiv:2207.02039.
    """
    return standardized_mse(student_feature, teacher_feature)


class PKD(nn.Module):
    """Module form of :func:`pkd`."""

    default_weight: ClassVar[float] = 6.0
    aligner: ClassVar[str] = "linear"

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`pkd`."""
        return pkd(student_feature, teacher_feature)
