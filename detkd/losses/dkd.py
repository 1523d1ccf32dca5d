"""Distillation of softmax classifiers, the true class apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import binary_kl, kl_div
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    r"""Distil how sure the teacher is of the true class, and how it ranks the others, each with its own weight.

    .. math::
        \frac{T^2}{R} \sum_r \alpha \, \mathrm{KL}(b^t_r \| b^s_r) + \beta \, \mathrm{KL}(\hat p^t_r \| \hat p^s_r)

    with b the probabilities (true class, any other) and :math:`\hat p` the softmax over the other classes alone. In the
    divergence of the whole softmax the second part weighs :math:`1 - p^t`, next to nothing where the teacher is sure.

    Args:
        student_logits: Logits of a softmax, [R, K].
        teacher_logits: The same of the teacher; receives no gradient.
        labels: Index of the true class among the K, [R], integers; rows of label -1 are left out, whatever they hold.
        alpha: Weight of the true class's part.
        beta: Weight of the other classes' part. The default suits image classifiers; second stages of detectors take 0.25
            at temperature 1.
        temperature: Softening T > 0.

    Returns:
        A float32 scalar, the mean over the rows that count; 0 if none does.

    Raises:
        ArgumentError: If the shapes do not fit each other, labels are no integers, or the temperature is not positive.

    Source:
        Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679.
    """
    check_pair(student_logits, teacher_logits)
    if student_logits.ndim != 2:
        raise ArgumentError(f"Expected argument `student_logits` to be [R, K], but got {tuple(student_logits.shape)}.")
    if labels.shape != student_logits.shape[:1] or labels.is_floating_point():
        raise ArgumentError(
            f"Expected argument `labels` to be integers [R] for logits [R, K], but got {labels.dtype} "
            f"{tuple(labels.shape)} for {tuple(student_logits.shape)}."
        )
    if not student_logits.numel():
        return accumulate(student_logits).sum()
    # A row that is left out becomes zeros in both models: nothing diverges, and no gradient comes out of it.
    left_out = (labels < 0)[:, None]
    target = labels.clamp(min=0)[:, None]
    (true_s, other_s), (true_t, other_t) = (
        _split(logits.masked_fill(left_out, 0.0), target) for logits in (student_logits, teacher_logits.detach())
    )
    true_loss = binary_kl(_margin(true_s, other_s, temperature), _margin(true_t, other_t, temperature), reduction="sum")
    other_loss = kl_div(other_s, other_t, 1, temperature, None, "sum")  # has T² in it
    return (alpha * temperature**2 * true_loss + beta * other_loss) / (labels >= 0).sum().clamp(min=1)


def _split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The true class's logit [R], and all logits with that one at -inf [R, K]."""
    return logits.gather(1, target).squeeze(1), logits.scatter(1, target, -torch.inf)


def _margin(true: Tensor, others: Tensor, temperature: float) -> Tensor:
    """The logit of the true class against any other: the log of the ratio of their probabilities."""
    return accumulate(true) / temperature - (accumulate(others) / temperature).logsumexp(1)


class DKD(nn.Module):
    """Module form of :func:`dkd`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def forward(self, student_softmax_logits: Tensor, teacher_softmax_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`dkd`."""
        return dkd(
            student_softmax_logits,
            teacher_softmax_logits,
            labels,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )
