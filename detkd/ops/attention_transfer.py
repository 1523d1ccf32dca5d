"""Squared difference of normalised spatial attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_same_positions
from detkd.ops._fused import define

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend


def attention_transfer(student: Tensor, teacher: Tensor, p: float = 2.0, backend: Backend = "auto") -> Tensor:
    r"""Compute the mean over images and positions of :math:`(\hat A(s) - \hat A(t))^2`.

    :math:`A(f) = \sum_c |f_c|^p` is the attention map of an image and :math:`\hat A` the same map at Euclidean length 1, so
    that neither the number of channels nor the scale of the features matters.

    Args:
        student: Feature map [N, C, H, W].
        teacher: Feature map [N, C', H, W], of any number of channels; receives no gradient.
        p: Exponent, at least 1.
        backend: ``fused`` insists on the compiled kernel, ``reference`` on plain PyTorch, ``auto`` takes what there is.

    Returns:
        The loss as a scalar in float32 (float64 for float64 input); 0 for an empty input.

    Raises:
        ArgumentError: If shapes or the exponent do not fit.
        BackendError: If ``fused`` is asked for and cannot run.

    Source:
        Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928.
    """
    check_same_positions(student, teacher)
    if not p >= 1:
        raise ArgumentError(f"Expected argument `p` to be at least 1, but got {p}.")
    return _run(backend, student, teacher, p)


def attention_transfer_reference(student: Tensor, teacher: Tensor, p: float) -> Tensor:
    """The same in plain PyTorch."""
    gap = _attention(student, p) - _attention(teacher, p)
    return gap.square().sum() / max(gap.numel(), 1)


def _attention(maps: Tensor, p: float) -> Tensor:
    return F.normalize(accumulate(maps).abs().pow(p).sum(1).flatten(1), dim=1)


_run = define("attention_transfer", "float p", reference=attention_transfer_reference, loss_shape=lambda *_: ())
