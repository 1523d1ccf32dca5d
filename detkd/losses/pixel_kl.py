"""Softened class probabilities of every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.losses._pixels import check_pixels, weigh, weighted_mean
from detkd.ops import binary_kl, kl_div

if TYPE_CHECKING:
    from torch import Tensor


def pixel_kl(
    student_pixels: Tensor,
    teacher_pixels: Tensor,
    pixel_weights: Tensor | None = None,
    pixel_labels: Tensor | None = None,
    *,
    temperature: float = 4.0,
    boundary_gain: float = 0.0,
    radius: int = 2,
) -> Tensor:
    r"""Distil what a segmenter says of each pixel, more so where objects end.

    .. math::
        \frac{T^2}{\sum_i w_i} \sum_i w_i \, \mathrm{KL}(p^t_i \| p^s_i), \quad w_i = v_i \, (1 + g \, [i \in \partial])

    where v are the pixels' weights, ∂ the pixels within `radius` of a change of label, and p a softmax over the K channels
    at temperature T, or of a single channel a sigmoid. The logits are read where they lie: nothing of their size is made
    but the gradient.

    Args:
        student_pixels: Logits of the student, [B, K, H, W].
        teacher_pixels: Logits of the teacher, same shape; receives no gradient.
        pixel_weights: Weight of each pixel, [B, H, W]; 0 ignores it. None weighs all alike.
        pixel_labels: The labels, [B, H, W], -1 where there is none; needed for `boundary_gain` alone.
        temperature: Softening T > 0; the factor T² keeps gradients of the size of the hard-label loss.
        boundary_gain: How much more a pixel counts near a boundary, g ≥ 0.
        radius: Pixels from a change of label, along rows and columns, that count as near; ≥ 1.

    Returns:
        A float32 scalar; 0 where no pixel has a weight.

    Raises:
        ArgumentError: If shapes, temperature, gain or radius do not fit.

    Source:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531; pixel by pixel: Liu et
        al.: Structured Knowledge Distillation for Dense Prediction, TPAMI 2020, arXiv:1903.04197. Weights near boundaries
        follow U-Net's own (Ronneberger et al., MICCAI 2015, arXiv:1505.04597), with a step instead of a Gaussian.
    """
    check_pixels(student_pixels, teacher_pixels)
    weights = weigh(student_pixels, pixel_weights, pixel_labels, boundary_gain, radius)
    if student_pixels.shape[1] == 1:
        total = binary_kl(student_pixels, teacher_pixels, temperature, weight=weights[:, None], reduction="sum")
    else:
        total = kl_div(student_pixels, teacher_pixels, 1, temperature, weights, "sum")
    return weighted_mean(total, weights)


class PixelKL(nn.Module):
    """Module form of :func:`pixel_kl`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, temperature: float = 4.0, boundary_gain: float = 0.0, radius: int = 2) -> None:
        super().__init__()
        self.temperature = temperature
        self.boundary_gain = boundary_gain
        self.radius = radius

    def forward(
        self, student_pixels: Tensor, teacher_pixels: Tensor, pixel_weights: Tensor, pixel_labels: Tensor
    ) -> Tensor:
        """Return the scalar loss; see :func:`pixel_kl`."""
        return pixel_kl(
            student_pixels,
            teacher_pixels,
            pixel_weights,
            pixel_labels,
            temperature=self.temperature,
            boundary_gain=self.boundary_gain,
            radius=self.radius,
        )
