"""The teacher's decisions as labels of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.losses._labels import check_threshold
from detkd.losses._pixels import check_pixels, weigh, weighted_mean
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def pixel_label(
    student_pixels: Tensor,
    teacher_pixels: Tensor,
    pixel_weights: Tensor | None = None,
    pixel_labels: Tensor | None = None,
    *,
    threshold: float = 0.7,
    boundary_gain: float = 0.0,
    radius: int = 2,
) -> Tensor:
    r"""Train on the class that the teacher decides for, at the pixels where it is sure.

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \, (-\log p^s_{i, k_i}), \quad k_i = \arg\max_c p^t_{i,c}, \quad
        w_i = v_i \, (1 + g \, [i \in \partial]) \, [p^t_{i, k_i} \ge \tau]

    with weights v, gain g and boundary ∂ as in :func:`detkd.losses.pixel_kl`. A single channel is a sigmoid, whose two
    answers are the classes; at τ = 0.5 it is sure everywhere.

    Args:
        student_pixels: Logits of the student, [B, K, H, W].
        teacher_pixels: Logits of the teacher, same shape; receives no gradient.
        pixel_weights: Weight of each pixel, [B, H, W]; 0 ignores it. None weighs all alike.
        pixel_labels: The labels, [B, H, W], -1 where there is none; needed for `boundary_gain` alone.
        threshold: Probability τ in (0, 1).
        boundary_gain: How much more a pixel counts near a boundary, g ≥ 0.
        radius: Pixels from a change of label, along rows and columns, that count as near; ≥ 1.

    Returns:
        A float32 scalar; 0 where no pixel counts.

    Raises:
        ArgumentError: If shapes, threshold, gain or radius do not fit.

    Source:
        Lee: Pseudo-Label, ICML 2013 workshop; with a threshold: Sohn et al.: FixMatch, NeurIPS 2020, arXiv:2001.07685.
    """
    check_pixels(student_pixels, teacher_pixels)
    check_threshold(threshold)
    weights = weigh(student_pixels, pixel_weights, pixel_labels, boundary_gain, radius)
    confidence, decided = _decide(accumulate(teacher_pixels.detach()))
    weights = weights * (confidence >= threshold)
    student = accumulate(student_pixels)
    if student.shape[1] == 1:
        losses = F.binary_cross_entropy_with_logits(student[:, 0], decided.to(student.dtype), reduction="none")
    else:
        losses = F.cross_entropy(student, decided, reduction="none")
    return weighted_mean((losses * weights).sum(), weights)


def _decide(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Probability and index of the likeliest class of each pixel, [B, H, W]; of a sigmoid the classes are no and yes."""
    if teacher.shape[1] == 1:
        return teacher[:, 0].abs().sigmoid(), (teacher[:, 0] > 0).long()
    best, decided = teacher.max(1)
    return (best - torch.logsumexp(teacher, 1)).exp(), decided


class PixelLabel(nn.Module):
    """Module form of :func:`pixel_label`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, threshold: float = 0.7, boundary_gain: float = 0.0, radius: int = 2) -> None:
        super().__init__()
        self.threshold = threshold
        self.boundary_gain = boundary_gain
        self.radius = radius

    def forward(
        self, student_pixels: Tensor, teacher_pixels: Tensor, pixel_weights: Tensor, pixel_labels: Tensor
    ) -> Tensor:
        """Return the scalar loss; see :func:`pixel_label`."""
        return pixel_label(
            student_pixels,
            teacher_pixels,
            pixel_weights,
            pixel_labels,
            threshold=self.threshold,
            boundary_gain=self.boundary_gain,
            radius=self.radius,
        )
