"""Hidden states of a Transformer's layers, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor


def hidden_state(student_feature: Tensor, teacher_feature: Tensor, token_mask: Tensor) -> Tensor:
    r"""Mean squared difference of the hidden states of real tokens.

    .. math:: \frac{1}{D M} \sum_{b,l: m_{bl}} \| h^s_{bl} W - h^t_{bl} \|_2^2

    with the number M of real tokens, at least 1; the aligner W is the caller's.

    Args:
        student_feature: Hidden states of the student behind its aligner, [B, D, L, 1] or [B, D, L].
        teacher_feature: The same of the teacher; receives no gradient.
        token_mask: Which tokens are no padding, [B, L] of bool.

    Returns:
        A float32 scalar; 0 if no token is real.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        Jiao et al.: TinyBERT, Findings of EMNLP 2020, arXiv:1909.10351, equations 8 and 9.
    """
    check_pair(student_feature, teacher_feature)
    fits = (student_feature.shape[0], *student_feature.shape[2:]) in {(*token_mask.shape,), (*token_mask.shape, 1)}
    if not fits or token_mask.ndim != 2:
        raise ArgumentError(
            f"Expected argument `token_mask` to be [B, L] for features [B, D, L, 1], but got {tuple(token_mask.shape)} for "
            f"{tuple(student_feature.shape)}."
        )
    squared = (accumulate(student_feature) - accumulate(teacher_feature.detach())).square()
    by_token = squared.sum([1, *range(3, squared.ndim)]) / max(squared.shape[1], 1)
    return by_token.where(token_mask, by_token.new_zeros(())).sum() / token_mask.sum().clamp(min=1)


class HiddenState(nn.Module):
    """Module form of :func:`hidden_state`."""

    default_weight: ClassVar[float] = 1.0
    aligner: ClassVar[str] = "linear"

    def forward(self, student_feature: Tensor, teacher_feature: Tensor, token_mask: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`hidden_state`."""
        return hidden_state(student_feature, teacher_feature, token_mask)
