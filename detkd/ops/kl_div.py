"""Kullback-Leibler divergence of temperature softmaxes over any dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError
from detkd.ops._common import (
    accumulate,
    check_pair,
    check_reduction,
    check_temperature,
    expand_mask,
    expand_weight,
    reduce,
)
from detkd.ops._fused import define

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend, Reduction


def kl_div(
    student: Tensor,
    teacher: Tensor,
    dim: int = -1,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Compute :math:`T^2 \sum_c p^t_c (\log p^t_c - \log p^s_c)` at each position, softmax over `dim`.

    Args:
        student: Logits, any shape of at least one dimension; float32, float16 or bfloat16 (float64 in the reference).
        teacher: Logits of the same shape; receives no gradient.
        dim: The dimension of the softmax.
        temperature: Softening T > 0.
        weight: Weight of each position, broadcast over the shape without `dim`; 0 masks.
        reduction: ``none`` (the shape without `dim`), ``sum``, ``mean`` (÷ positions) or ``batchmean`` (÷ size of the
            first dimension of positions).
        backend: ``fused`` insists on the compiled kernel, ``reference`` on plain PyTorch, ``auto`` takes what there is.
        mask: Which elements count, broadcast over the logits' shape: those of 0 (or False) are left out of both softmaxes,
            whatever they hold, and get no gradient. The fused kernels read it in place, float32, where elements along `dim`
            are neighbours in memory, and else work on copies.

    Returns:
        The loss in float32 (float64 for float64 input). Terms with :math:`p^t_c = 0` count 0, also where the student is
        −inf; a row of teacher or student without a finite entry, or of masked ones alone, counts 0; NaN stays
        NaN.

    Raises:
        ArgumentError: If shapes, dtype, `dim`, temperature or reduction do not fit.
        BackendError: If ``fused`` is asked for and cannot run.

    Source:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """
    check_pair(student, teacher)
    check_temperature(temperature)
    check_reduction(reduction)
    dim = _check_dim(dim, student.ndim)
    weight = expand_weight(weight, _positions(student, dim))
    return _run(backend, student, teacher, dim, temperature, weight, expand_mask(mask, student.shape), reduction)


def kl_div_reference(
    student: Tensor,
    teacher: Tensor,
    dim: int,
    temperature: float,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """The same in plain PyTorch, for a `dim` that is not negative, a weight of the positions' shape and a full mask."""
    if mask is not None:
        student, teacher = (x.masked_fill(mask == 0, -torch.inf) for x in (student, teacher))
    return reduce(_rows(student, teacher, dim, temperature, weight), weight, reduction)


def _rows(student: Tensor, teacher: Tensor, dim: int, temperature: float, weight: Tensor | None) -> Tensor:
    s, t = accumulate(student) / temperature, accumulate(teacher) / temperature
    if not s.shape[dim]:
        return s.sum(dim)
    # A row of −inf alone has no distribution; the zeros put in its place, and in that of masked rows, whatever they hold,
    # give divergence and gradient 0 below.
    void = (s == -torch.inf).all(dim, keepdim=True) | (t == -torch.inf).all(dim, keepdim=True)
    if weight is not None:
        void = void | (weight == 0).unsqueeze(dim)
    log_s = s.masked_fill(void, 0.0).log_softmax(dim)
    log_t = t.masked_fill(void, 0.0).log_softmax(dim)
    p_t = log_t.exp()
    gap = torch.where(p_t == 0, torch.zeros_like(p_t), log_t - log_s)
    rows = temperature**2 * (p_t * gap).sum(dim)
    return torch.where(void.squeeze(dim), torch.zeros_like(rows), rows)


def _check_dim(dim: int, ndim: int) -> int:
    if not -ndim <= dim < ndim:
        raise ArgumentError(f"Expected argument `dim` to lie in [{-ndim}, {ndim}), but got {dim}.")
    return dim % ndim


def _positions(student: Tensor, dim: int) -> tuple[int, ...]:
    return (*student.shape[:dim], *student.shape[dim + 1 :])


_run = define(
    "kl_div",
    "int dim, float temperature, Tensor? weight, Tensor? mask, str reduction",
    reference=kl_div_reference,
    loss_shape=lambda s, _t, dim, *others: _positions(s, dim) if others[-1] == "none" else (),
)
