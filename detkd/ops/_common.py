"""Checks and reductions shared by the ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch

from detkd.errors import ArgumentError
from detkd.types import Reduction

if TYPE_CHECKING:
    from torch import Tensor


def accumulate(x: Tensor) -> Tensor:
    """Return `x` in the type that ops compute in: float32, or float64 where it came in float64."""
    return x if x.dtype == torch.float64 else x.float()


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse a teacher that has not the student's shape, and tensors that are not floating point."""
    if student.shape != teacher.shape:
        raise ArgumentError(
            f"Expected argument `teacher` to have the student's shape {tuple(student.shape)}, but got "
            f"{tuple(teacher.shape)}. Align channels, classes and sizes first."
        )
    for name, tensor in (("student", student), ("teacher", teacher)):
        if not tensor.is_floating_point():
            raise ArgumentError(
                f"Expected argument `{name}` to be floating point, but got {tensor.dtype}. Pass logits or features."
            )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive."""
    if not temperature > 0:
        raise ArgumentError(f"Expected argument `temperature` to be above 0, but got {temperature}.")


def check_reduction(reduction: str) -> None:
    """Refuse a reduction of another name."""
    if reduction not in get_args(Reduction):
        raise ArgumentError(
            f"Expected argument `reduction` to be one of {list(get_args(Reduction))}, but got {reduction!r}."
        )


def reduce(values: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Weigh and reduce a tensor of losses.

    Args:
        values: One loss for each position.
        weight: Broadcasts over `values`; a weight of 0 masks a position, even one whose loss is not finite.
        reduction: ``none``, ``sum``, ``mean`` (÷ positions, masked ones included) or ``batchmean`` (÷ size of dim 0).

    Returns:
        A scalar, or `values` weighted for ``none``; 0 for an empty input.
    """
    if weight is not None:
        try:
            weight = weight.to(values.dtype).expand_as(values)
        except RuntimeError as error:
            raise ArgumentError(
                f"Expected argument `weight` to broadcast over positions {tuple(values.shape)}, but got "
                f"{tuple(weight.shape)}."
            ) from error
        values = torch.where(weight == 0, values.new_zeros(()), values * weight)
    if reduction == "none":
        return values
    total = values.sum()
    if reduction == "mean":
        return total / max(values.numel(), 1)
    if reduction == "batchmean":
        return total / max(values.shape[0] if values.ndim else 1, 1)
    return total
