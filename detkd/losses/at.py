"""Feature distillation by spatial attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.ops import attention_transfer

if TYPE_CHECKING:
    from torch import Tensor


def at(student_feature: Tensor, teacher_feature: Tensor, *, p: float = 2.0) -> Tensor:
    r"""Mean squared difference of spatial attention maps at length 1.

    .. math::
        \frac{1}{N H W} \sum_{n,i} \Big( \frac{A^s_{n,i}}{\|A^s_n\|_2} - \frac{A^t_{n,i}}{\|A^t_n\|_2} \Big)^2,
        \quad A_{n,i} = \sum_c |f_{n,c,i}|^p

    The channels are summed up, so teacher and student may have any number of them and no aligner stands between.

    Args:
        student_feature: Feature map of the student, [N, C, H, W].
        teacher_feature: Feature map of the teacher, [N, C', H, W]; receives no gradient.
        p: Exponent, at least 1.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the images or positions differ, or the exponent is below 1.

    Source:
        Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928; mean over positions and the
        weight of 1000 as in its code.
    """
    return attention_transfer(student_feature, teacher_feature, p)


class AT(nn.Module):
    """Module form of :func:`at`."""

    default_weight: ClassVar[float] = 1000.0
    aligner: ClassVar[str] = "none"

    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`at`."""
        return at(student_feature, teacher_feature, p=self.p)
