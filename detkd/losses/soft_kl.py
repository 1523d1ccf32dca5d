"""Temperature-softened Kullback-Leibler divergence between two classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.ops import kl_div

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Reduction


def soft_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    dim: int = 1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distil softened class probabilities: :math:`T^2 \sum_c p^t_c (\log p^t_c - \log p^s_c)`.

    The softmax runs over `dim`, so the same call serves rows [N, C] and dense maps [N, C, H, W]. It is meant for classes
    that exclude each other; a sigmoid head (YOLO) needs :func:`detkd.losses.bckd`, because the softmax of a single class is
    constant and its divergence identically zero.

    Args:
        student_logits: Logits of the student, any shape.
        teacher_logits: Logits of the teacher, same shape; receives no gradient.
        temperature: Softening T > 0; the factor T² keeps gradients of the size of the hard-label loss.
        dim: The class dimension.
        weight: Weight of each position, broadcast over the shape without `dim`.
        reduction: ``none``, ``sum``, ``mean`` (÷ positions) or ``batchmean`` (÷ size of dimension 0).

    Returns:
        A float32 scalar, or a tensor of the positions' shape for ``none``.

    Raises:
        ArgumentError: If shapes, temperature or reduction do not fit.

    Source:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """
    return kl_div(student_logits, teacher_logits, dim, temperature, weight, reduction)


class SoftKL(nn.Module):
    """Module form of :func:`soft_kl`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, temperature: float = 4.0, dim: int = 1) -> None:
        super().__init__()
        self.temperature = temperature
        self.dim = dim

    def forward(
        self, student_softmax_logits: Tensor, teacher_softmax_logits: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean over positions; see :func:`soft_kl`."""
        return soft_kl(
            student_softmax_logits, teacher_softmax_logits, temperature=self.temperature, dim=self.dim, weight=weight
        )
