"""Divergence of independent Bernoulli variables: one binary problem for each logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from detkd.errors import ArgumentError
from detkd.ops._common import (
    accumulate,
    check_pair,
    check_reduction,
    check_temperature,
    expand_weight,
    reduce,
)
from detkd.ops._fused import define

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend, Reduction


def binary_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    beta: float = 0.0,
    kind: Literal["kl", "bce"] = "kl",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
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
        backend: ``fused`` insists on the compiled kernel, ``reference`` on plain PyTorch, ``auto`` takes what there is.

    Returns:
        The loss in float32 (float64 for float64 input). Infinite logits are probabilities 0 and 1; a probability of 0
        times its logarithm counts 0; NaN stays NaN.

    Raises:
        ArgumentError: If shapes, temperature, beta, kind or reduction do not fit.
        BackendError: If ``fused`` is asked for and cannot run.
    """
    check_pair(student, teacher)
    check_temperature(temperature)
    check_reduction(reduction)
    if not beta >= 0:
        raise ArgumentError(f"Expected argument `beta` to be at least 0, but got {beta}.")
    if kind not in {"kl", "bce"}:
        raise ArgumentError(f"Expected argument `kind` to be 'kl' or 'bce', but got {kind!r}.")
    weight = expand_weight(weight, student.shape)
    return _run(backend, student, teacher, temperature, beta, kind, weight, reduction)


def binary_kl_reference(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    beta: float,
    kind: str,
    weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """The same in plain PyTorch, for a weight of the logits' shape."""
    s, t = accumulate(student) / temperature, accumulate(teacher) / temperature
    if weight is not None:  # whatever a masked logit holds
        s, t = s.masked_fill(weight == 0, 0.0), t.masked_fill(weight == 0, 0.0)
    p_t = t.sigmoid()
    # -log of the two probabilities; a probability of 0 times an infinite logarithm counts 0.
    values = _product(p_t, F.softplus(-s)) + _product((-t).sigmoid(), F.softplus(s))
    if kind == "kl":
        values = values - _product(p_t, F.softplus(-t)) - _product((-t).sigmoid(), F.softplus(t))
    if beta:
        gap = (p_t - s.sigmoid()).abs()
        apart = gap > 0  # where the two meet, the factor's slope counts 0
        factor = torch.where(apart, torch.where(apart, gap, torch.ones_like(gap)).pow(beta), torch.zeros_like(gap))
        values = torch.where(gap.isnan(), gap, values * factor)
    return reduce(temperature**2 * values, weight, reduction)


def _product(probability: Tensor, surprise: Tensor) -> Tensor:
    zero = probability == 0
    return probability * torch.where(zero, torch.zeros_like(surprise), surprise)


_run = define(
    "binary_kl",
    "float temperature, float beta, str kind, Tensor? weight, str reduction",
    reference=binary_kl_reference,
    loss_shape=lambda s, *others: tuple(s.shape) if others[-1] == "none" else (),
)
