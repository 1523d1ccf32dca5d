"""Feature distillation by the squared difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def fitnet(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    r"""Mean squared difference of features, :math:`\mathrm{mean} \, (f^s - f^t)^2`.

    Args:
        student_feature: Feature map of the student behind its aligner, any shape.
        teacher_feature: Feature map of the teacher, same shape; receives no gradient.

    Returns:
        A float32 scalar; 0 for an empty input.

    Raises:
        ArgumentError: If the shapes differ.

    Source:
        Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550.
    """
    if student_feature.shape != teacher_feature.shape:
        raise ArgumentError(
            f"Expected argument `teacher_feature` to have the student's shape {tuple(student_feature.shape)}, but got "
            f"{tuple(teacher_feature.shape)}. Align channels with a 1×1 convolution first."
        )
    squared = (accumulate(student_feature) - accumulate(teacher_feature.detach())).square()
    return squared.sum() / max(squared.numel(), 1)


class FitNet(nn.Module):
    """Module form of :func:`fitnet`."""

    default_weight: ClassVar[float] = 1.0
    aligner: ClassVar[str] = "linear"

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`fitnet`."""
        return fitnet(student_feature, teacher_feature)
