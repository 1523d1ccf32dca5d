"""Squared error weighted by the teacher's attention, with an attention loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_maps, check_pair, check_temperature, expand_weight
from detkd.ops._fused import define

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend


def attention_mse(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    temperature: float = 0.5,
    attention_gain: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    r"""Compute the focal part of focal and global distillation.

    .. math::
        \frac{1}{N} \Big[ \sum_{n,c,i} w_{n,i} \, S^t_{n,i} \, C^t_{n,c} \, (s_{n,c,i} - t_{n,c,i})^2
        + g \sum_{n,i} |S^s_{n,i} - S^t_{n,i}| + g \sum_{n,c} |C^s_{n,c} - C^t_{n,c}| \Big]

    with spatial attention :math:`S = HW \, \mathrm{softmax}_i(\mathrm{mean}_c |f| / T)` and channel attention
    :math:`C = C \, \mathrm{softmax}_c(\mathrm{mean}_i |f| / T)` of each image.

    Args:
        student: Feature map [N, C, H, W].
        teacher: Feature map of the same shape; receives no gradient.
        weight: Weight w of each position, broadcast over [N, H, W]: the gains of foreground and background where their
            masks are; 0 leaves a position's squared error out.
        temperature: T > 0 of the attention.
        attention_gain: Weight g of the attention loss.
        backend: ``fused`` insists on the compiled kernel, ``reference`` on plain PyTorch, ``auto`` takes what there is.

    Returns:
        The loss as a scalar in float32 (float64 for float64 input); 0 for an empty input.

    Raises:
        ArgumentError: If shapes or the temperature do not fit.
        BackendError: If ``fused`` is asked for and cannot run.

    Source:
        Yang et al.: Focal and Global Knowledge Distillation for Detectors, CVPR 2022, arXiv:2111.11837.
    """
    check_pair(student, teacher)
    check_maps(student, "student")
    check_temperature(temperature)
    if not attention_gain >= 0:
        raise ArgumentError(f"Expected argument `attention_gain` to be at least 0, but got {attention_gain}.")
    weight = expand_weight(weight, (student.shape[0], *student.shape[2:]))
    return _run(backend, student, teacher, weight, temperature, attention_gain)


def attention_mse_reference(
    student: Tensor, teacher: Tensor, weight: Tensor | None, temperature: float, attention_gain: float
) -> Tensor:
    """The same in plain PyTorch, for a weight [N, H, W]."""
    s, t = accumulate(student).flatten(2), accumulate(teacher).flatten(2)
    if not s.numel():
        return s.sum()
    (space_s, depth_s), (space_t, depth_t) = _attention(s, temperature), _attention(t, temperature)
    by_position = space_t if weight is None else space_t * weight.flatten(1).to(space_t.dtype)
    gap = torch.where((by_position == 0).unsqueeze(1), torch.zeros_like(s), s - t)
    errors = by_position.unsqueeze(1) * depth_t.unsqueeze(2) * gap.square()
    distance = (space_s - space_t).abs().sum() + (depth_s - depth_t).abs().sum()
    return (errors.sum() + attention_gain * distance) / s.shape[0]


def _attention(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    _, channels, positions = maps.shape
    strength = maps.abs()
    space = positions * (strength.mean(1) / temperature).softmax(1)
    return space, channels * (strength.mean(2) / temperature).softmax(1)


_run = define(
    "attention_mse",
    "Tensor? weight, float temperature, float attention_gain",
    reference=attention_mse_reference,
    loss_shape=lambda *_: (),
)
