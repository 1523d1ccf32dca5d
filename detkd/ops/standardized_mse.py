"""Squared difference of features standardised per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair, check_reduction, reduce

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Reduction


def standardized_mse(student: Tensor, teacher: Tensor, eps: float = 1e-6, reduction: Reduction = "mean") -> Tensor:
    r"""Compute :math:`\frac12 (\hat s - \hat t)^2` of features standardised per channel over N, H and W.

    Its mean is one minus Pearson's correlation, averaged over channels.

    Args:
        student: Feature map [N, C, H, W].
        teacher: Feature map of the same shape; receives no gradient.
        eps: Added to the standard deviation; a constant channel becomes zeros.
        reduction: ``none``, ``sum``, ``mean`` (÷ elements) or ``batchmean`` (÷ N).

    Returns:
        The loss in float32 (float64 for float64 input).

    Raises:
        ArgumentError: If shapes or reduction do not fit.

    Source:
        Cao et al.: PKD, NeurIPS 2022, arXiv:2207.02039.
    """
    check_pair(student, teacher)
    check_reduction(reduction)
    if student.ndim != 4:
        raise ArgumentError(f"Expected argument `student` to be [N, C, H, W], but got {tuple(student.shape)}.")
    gap = _standardize(student, eps) - _standardize(teacher.detach(), eps)
    return reduce(0.5 * gap.square(), None, reduction)


def _standardize(features: Tensor, eps: float) -> Tensor:
    if not features.numel():
        return accumulate(features)
    variance, mean = torch.var_mean(accumulate(features), dim=(0, 2, 3), keepdim=True, correction=0)
    # The clamp keeps the square root's slope finite where a channel is constant.
    return (accumulate(features) - mean) / (variance.clamp(min=eps**2).sqrt() + eps)
