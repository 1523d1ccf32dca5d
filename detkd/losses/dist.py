"""Relations between predictions instead of the predictions themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair, check_temperature, expand_weight

if TYPE_CHECKING:
    from torch import Tensor

# What a spread counts at least. The slope of a correlation is one over the spread: without a bound, a student whose
# probabilities are still all alike would be thrown off by its first step.
MIN_SPREAD = 1e-4


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Distil how classes relate at each position, and how positions relate in each class, by Pearson's correlation ρ.

    .. math::
        T^2 \Big[ \beta \, \mathrm{mean}_i \, (1 - \rho(p^s_{i,:}, p^t_{i,:}))
        + \gamma \, \mathrm{mean}_c \, (1 - \rho(p^s_{:,c}, p^t_{:,c})) \Big]

    A correlation asks for the same order and proportions, not for the same values, which suits a teacher much stronger than
    its student. Where the probabilities do not vary, in one of the two models, ρ is 0.

    Args:
        student_logits: Logits of a softmax over dimension 1, [N, C] or [N, C, ...]; all positions of all images are rows.
        teacher_logits: The same of the teacher; receives no gradient.
        beta: Weight of the relations between classes.
        gamma: Weight of the relations within a class.
        temperature: Softening T > 0.
        weight: Weight of each position, ≥ 0, broadcast over [N] or [N, ...], in the means and the correlations over
            positions; 0 ignores it.

    Returns:
        A float32 scalar; 0 for an empty input, and where no position has a weight.

    Raises:
        ArgumentError: If the shapes do not fit each other or the temperature is not positive.

    Source:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536.
    """
    check_pair(student_logits, teacher_logits)
    check_temperature(temperature)
    if student_logits.ndim < 2:
        raise ArgumentError(
            f"Expected argument `student_logits` to be [N, C] or [N, C, ...], but got {tuple(student_logits.shape)}."
        )
    if not student_logits.numel():
        return accumulate(student_logits).sum()
    student, teacher = ((accumulate(x) / temperature).softmax(1) for x in (student_logits, teacher_logits.detach()))
    weight = expand_weight(weight, (student.shape[0], *student.shape[2:]))
    share = None if weight is None else _shares(weight)
    positions = [0, *range(2, student.ndim)]
    apart = 1 - _correlation(student, teacher, [1])
    between = apart.mean() if share is None else (share * apart).sum()
    within = 1 - _correlation(student, teacher, positions, None if share is None else share.unsqueeze(1)).mean()
    loss = temperature**2 * (beta * between + gamma * within)
    return loss if share is None else loss * share.sum()  # of shares that sum to 1, or are all 0


def _shares(weight: Tensor) -> Tensor:
    """Weights divided by their sum; zeros where that is 0."""
    total = weight.sum()
    return weight / torch.where(total > 0, total, torch.ones_like(total))


def _correlation(student: Tensor, teacher: Tensor, dims: list[int], share: Tensor | None = None) -> Tensor:
    """Pearson's correlation over some dimensions, in the shape of the others; shares sum to 1 over them."""
    if share is None:
        s, t = (x - x.mean(dims, keepdim=True) for x in (student, teacher))
    else:  # a root of the share in each factor is a share in each product
        count = share.numel()
        s, t = ((x - (share * x).sum(dims, keepdim=True)) * (count * share).sqrt() for x in (student, teacher))
    spreads = [x.square().sum(dims).clamp(min=MIN_SPREAD**2).sqrt() for x in (s, t)]
    return (s * t).sum(dims) / (spreads[0] * spreads[1])


class DIST(nn.Module):
    """Module form of :func:`dist`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, student_softmax_logits: Tensor, teacher_softmax_logits: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`dist`."""
        return dist(
            student_softmax_logits,
            teacher_softmax_logits,
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )
