"""Squared difference of features standardised per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.ops._common import accumulate, check_maps, check_pair
from detkd.ops._fused import define

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend


def standardized_mse(student: Tensor, teacher: Tensor, eps: float = 1e-6, backend: Backend = "auto") -> Tensor:
    r"""Compute the mean of :math:`\frac12 (\hat s - \hat t)^2` of features standardised per channel over N, H and W.

    That is one minus Pearson's correlation, averaged over channels.

    Args:
        student: Feature map [N, C, H, W].
        teacher: Feature map of the same shape; receives no gradient.
        eps: Added to the standard deviation; a constant channel becomes zeros.
        backend: ``fused`` insists on the compiled kernel, ``reference`` on plain PyTorch, ``auto`` takes what there is.

    Returns:
        The loss as a scalar in float32 (float64 for float64 input); 0 for an empty input.

    Raises:
        ArgumentError: If the shapes do not fit.
        BackendError: If ``fused`` is asked for and cannot run.

    Source:
        Cao et al.: PKD, NeurIPS 2022, arXiv:2207.02039.
    """
    check_pair(student, teacher)
    check_maps(student, "student")
    return _run(backend, student, teacher, eps)


def standardized_mse_reference(student: Tensor, teacher: Tensor, eps: float) -> Tensor:
    """The same in plain PyTorch."""
    gap = _standardize(student, eps) - _standardize(teacher, eps)
    return 0.5 * gap.square().sum() / max(gap.numel(), 1)


def _standardize(features: Tensor, eps: float) -> Tensor:
    if not features.numel():
        return accumulate(features)
    variance, mean = torch.var_mean(accumulate(features), dim=(0, 2, 3), keepdim=True, correction=0)
    # The clamp keeps the square root's slope finite where a channel is constant.
    return (accumulate(features) - mean) / (variance.clamp(min=eps**2).sqrt() + eps)


_run = define("standardized_mse", "float eps", reference=standardized_mse_reference, loss_shape=lambda *_: ())
