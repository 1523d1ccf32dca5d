"""Kullback-Leibler divergence of temperature softmaxes over any dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detkd.errors import ArgumentError, BackendError
from detkd.ops import _extension
from detkd.ops._common import accumulate, check_pair, check_reduction, check_temperature, reduce

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

    Returns:
        The loss in float32 (float64 for float64 input). Terms with :math:`p^t_c = 0` count 0, also where the student is
        −inf; a row of teacher or student without a finite entry counts 0; NaN stays NaN.

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
    if _extension.use_fused("kl_div", backend, student, teacher):
        wanted = student.requires_grad and torch.is_grad_enabled()
        rows = torch.ops.detkd.kl_div_rows(student, teacher.detach(), dim, temperature, wanted)[0]
    else:
        rows = kl_div_reference(student, teacher.detach(), dim, temperature)
    return reduce(rows, weight, reduction)


def kl_div_reference(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> Tensor:
    """Divergence at each position in plain PyTorch; the shape is the input's without `dim`."""
    s, t = accumulate(student) / temperature, accumulate(teacher) / temperature
    if not s.shape[dim]:
        return s.sum(dim)
    # A row of −inf alone has no distribution; the zeros put in its place give it divergence and gradient 0 below.
    void = (s == -torch.inf).all(dim, keepdim=True) | (t == -torch.inf).all(dim, keepdim=True)
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


def _fake(student: Tensor, teacher: Tensor, dim: int, temperature: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    positions = [size for axis, size in enumerate(student.shape) if axis != dim]
    gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
    return student.new_empty(positions, dtype=torch.float32), gradient if with_gradient else student.new_empty(0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dim = inputs[2]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad_rows: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # The gradient came ready from the forward pass and carries no graph: a second derivative would be silently wrong.
        raise BackendError("kl_div: the fused kernel has no second derivative. Use backend='reference' for one.")
    (gradient,) = ctx.saved_tensors
    return (gradient * grad_rows.unsqueeze(ctx.dim)).to(gradient.dtype), None, None, None, None


if _extension.load_error() is None:
    torch.library.register_fake("detkd::kl_div_rows", _fake)
    torch.library.register_autograd("detkd::kl_div_rows", _backward, setup_context=_save)
