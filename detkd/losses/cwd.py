"""Channel-wise distillation: where each channel looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import kl_div

if TYPE_CHECKING:
    from torch import Tensor


def cwd(student_feature: Tensor, teacher_feature: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""KL divergence of each channel's softmax over positions, :math:`T^2 / (N C) \sum_{n,c} \mathrm{KL}(p^t \| p^s)`.

    The softmax over positions asks where a channel is strong, not how strong it is.

    Args:
        student_feature: Feature map (or logits) of the student, [N, C, H, W].
        teacher_feature: The same of the teacher, same shape; receives no gradient.
        temperature: Softening T > 0; 1 for features, 4 for logits.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes differ or are not [N, C, H, W], or the temperature is not positive.

    Source:
        Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256.
    """
    if student_feature.ndim != 4:
        raise ArgumentError(
            f"Expected argument `student_feature` to be [N, C, H, W], but got {tuple(student_feature.shape)}."
        )
    return kl_div(student_feature.flatten(2), teacher_feature.flatten(2), 2, temperature, None, "mean")


class CWD(nn.Module):
    """Module form of :func:`cwd`."""

    default_weight: ClassVar[float] = 10.0
    aligner: ClassVar[str] = "linear"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`cwd`."""
        return cwd(student_feature, teacher_feature, temperature=self.temperature)
