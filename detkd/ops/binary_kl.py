"""Divergence of independent Bernoulli variables: one binary problem for each logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair, check_reduction, check_temperature, reduce

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Reduction


def binary_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    beta: float = 0.0,
    kind: Literal["kl", "bce"] = "kl",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Compute :math:`T^2 \, D(\sigma(t/T), \sigma(s/T)) \, |\sigma(t/T) - \sigma(s/T)|^\beta` for every logit.

    D is the Kullback-Leibler divergence (``kl``) or the binary cross-entropy with the teacher's probability as the
    target (``bce``). The gradient flows through the modulating factor as in quality focal loss (Li et al. 2020,
    arXiv:2006.04388).

    Args:
        student: Logits of any shape.
        teacher: Logits of the same shape; receives no gradient.
        temperature: Softening T > 0.
        beta: Exponent of the modulating factor, ≥ 0.
        kind: ``kl`` or ``bce``.
        weight: Broadcasts over the logits; 0 masks.
        reduction: ``none``, ``sum``, ``mean`` (÷ logits) or ``batchmean`` (÷ size of dim 0).

    Returns:
        The loss in float32 (float64 for float64 input).

    Raises:
        ArgumentError: If shapes, temperature, beta, kind or reduction do not fit.
    """
    check_pair(student, teacher)
    check_temperature(temperature)
    check_reduction(reduction)
    if not beta >= 0:
        raise ArgumentError(f"Expected argument `beta` to be at least 0, but got {beta}.")
    if kind not in {"kl", "bce"}:
        raise ArgumentError(f"Expected argument `kind` to be 'kl' or 'bce', but got {kind!r}.")
    s, t = accumulate(student) / temperature, accumulate(teacher.detach()) / temperature
    p_t = t.sigmoid()
    values = F.binary_cross_entropy_with_logits(s, p_t, reduction="none")
    if kind == "kl":
        values = values - F.binary_cross_entropy_with_logits(t, p_t, reduction="none")
    if beta:
        values = values * (p_t - s.sigmoid()).abs().pow(beta)
    return reduce(temperature**2 * values, weight, reduction)
