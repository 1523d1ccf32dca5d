"""Layers that bring a student's feature map to the teacher's channels."""

from __future__ import annotations

from torch import nn


def make_aligner(kind: str, student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the aligner that a feature loss asks for.

    Args:
        kind: ``linear``, one 1×1 convolution, left out where the channels agree (FitNets, Romero et al. 2015,
            arXiv:1412.6550); ``mlp``, two of them around a ReLU, always; or ``none``, for losses that take any channels.
        student_channels: Channels of the student's feature map.
        teacher_channels: Channels of the teacher's.

    Returns:
        A module from [N, student_channels, H, W] to [N, teacher_channels, H, W].
    """
    if kind == "mlp":
        return nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1),
        )
    if kind == "none" or student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, 1)
