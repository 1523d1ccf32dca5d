"""Checks and reductions shared by the ops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

import torch

from detkd.errors import ArgumentError
from detkd.types import Reduction

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    check_floating(student, "student")
    check_floating(teacher, "teacher")


def check_floating(tensor: Tensor, name: str) -> None:
    """Refuse integers."""
    if not tensor.is_floating_point():
        raise ArgumentError(
            f"Expected argument `{name}` to be floating point, but got {tensor.dtype}. Pass logits or features."
        )


def check_maps(maps: Tensor, name: str) -> None:
    """Refuse what is no feature map."""
    if maps.ndim != 4:
        raise ArgumentError(f"Expected argument `{name}` to be [N, C, H, W], but got {tuple(maps.shape)}.")


def check_same_positions(student: Tensor, teacher: Tensor) -> None:
    """Refuse what are not feature maps of the same images and positions; the channels may differ."""
    for name, maps in (("student", student), ("teacher", teacher)):
        check_floating(maps, name)
        check_maps(maps, name)
    if (student.shape[0], *student.shape[2:]) != (teacher.shape[0], *teacher.shape[2:]):
        raise ArgumentError(
            f"Expected argument `teacher` to have the student's N, H and W, {tuple(student.shape)}, but got "
            f"{tuple(teacher.shape)}. Resize the larger map first."
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


def promote(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Bring both to the wider of their types: under autocast a teacher is often float32 beside a 16-bit student."""
    if student.dtype == teacher.dtype:  # four microseconds, where small losses take a hundred
        return student, teacher
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    return student.to(dtype), teacher.to(dtype)


def expand_weight(weight: Tensor | None, positions: Sequence[int]) -> Tensor | None:
    """Broadcast a weight over positions, in float32 or float64 and without a gradient of its own."""
    return None if weight is None else _expand(weight, positions, "weight", "positions")


def expand_mask(mask: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """The same of a mask over all elements."""
    return None if mask is None else _expand(mask, shape, "mask", "the logits' shape")


def _expand(values: Tensor, shape: Sequence[int], name: str, over: str) -> Tensor:
    try:
        return accumulate(values.detach()).expand(shape)
    except RuntimeError as error:
        raise ArgumentError(
            f"Expected argument `{name}` to broadcast over {over} {tuple(shape)}, but got {tuple(values.shape)}."
        ) from error


def divisor(positions: Sequence[int], reduction: str) -> float:
    """What a reduction divides the sum over positions by."""
    if reduction == "mean":
        return max(math.prod(positions), 1)
    if reduction == "batchmean":
        return max(positions[0] if positions else 1, 1)
    return 1


def reduce(values: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Weigh and reduce a tensor of losses.

    Args:
        values: One loss for each position.
        weight: Of the same shape; a weight of 0 masks a position, even one whose loss is not finite.
        reduction: ``none``, ``sum``, ``mean`` (÷ positions, masked ones included) or ``batchmean`` (÷ size of dim 0).

    Returns:
        A scalar, or `values` weighted for ``none``; 0 for an empty input.
    """
    if weight is not None:
        values = torch.where(weight == 0, values.new_zeros(()), values * weight.to(values.dtype))
    if reduction == "none":
        return values
    return values.sum() / divisor(values.shape, reduction)
