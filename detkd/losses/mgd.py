"""Masked generative distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


class MGD(nn.Module):
    r"""The student must generate the teacher's whole feature map from its own with positions masked out.

    .. math::
        \frac{1}{N} \sum (G(f^s \odot M) - f^t)^2

    with M zero at a random share of the positions of each image, and G two 3×3 convolutions around a ReLU, which train with
    the student. It is a module only, because G has parameters.

    Args:
        channels: Channels of the teacher's feature map, to which an aligner has brought the student's.
        mask_ratio: Share of the positions masked out, from 0 to below 1; .65 for one-stage and .45 for two-stage detectors.

    Raises:
        ArgumentError: If `mask_ratio` is out of range.

    Source:
        Yang et al.: Masked Generative Distillation, ECCV 2022, arXiv:2205.01529; the weight of 2e-5 as in its code.
    """

    default_weight: ClassVar[float] = 2e-5
    aligner: ClassVar[str] = "linear"

    def __init__(self, channels: int, mask_ratio: float = 0.65) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise ArgumentError(f"Expected argument `mask_ratio` to be from 0 to below 1, but got {mask_ratio}.")
        self.mask_ratio = mask_ratio
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss.

        Args:
            student_feature: Feature map of the student behind its aligner, [N, channels, H, W].
            teacher_feature: Feature map of the teacher, same shape; receives no gradient.

        Raises:
            ArgumentError: If the shapes differ.
        """
        if student_feature.shape != teacher_feature.shape or student_feature.ndim != 4:
            raise ArgumentError(
                f"Expected argument `teacher_feature` to have the student's shape {tuple(student_feature.shape)} = "
                f"[N, C, H, W], but got {tuple(teacher_feature.shape)}. Align channels with a 1×1 convolution first."
            )
        n, _, h, w = student_feature.shape
        kept = torch.rand((n, 1, h, w), device=student_feature.device) >= self.mask_ratio
        generated: Tensor = self.generation(accumulate(student_feature) * kept)
        return (generated - accumulate(teacher_feature.detach())).square().sum() / max(n, 1)
