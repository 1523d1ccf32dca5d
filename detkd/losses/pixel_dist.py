"""Relations between the classes of pixels, and between the pixels of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.losses._pixels import check_of_pixels, check_pixels
from detkd.losses.dist import dist

if TYPE_CHECKING:
    from torch import Tensor


def pixel_dist(
    student_pixels: Tensor,
    teacher_pixels: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    r"""Distil how classes relate at each pixel, and how the pixels of a batch relate in each class.

    .. math::
        T^2 \Big[ \beta \, \mathrm{mean}_i \, (1 - \rho(p^s_{i,:}, p^t_{i,:}))
        + \gamma \, \mathrm{mean}_k \, (1 - \rho(p^s_{:,k}, p^t_{:,k})) \Big]

    with Pearson's correlation ρ, weighted by the pixels' weights. It is :func:`detkd.losses.dist` on pixels. A single
    channel is a sigmoid, whose two answers relate one way only: of such a head the pixels' relations alone are taught.

    Args:
        student_pixels: Logits of the student, [B, K, H, W].
        teacher_pixels: Logits of the teacher, same shape; receives no gradient.
        pixel_weights: Weight of each pixel, [B, H, W]; 0 ignores it. None weighs all alike.
        beta: Weight of the relations between classes.
        gamma: Weight of the relations within a class.
        temperature: Softening T > 0.

    Returns:
        A float32 scalar; 0 where no pixel has a weight.

    Raises:
        ArgumentError: If the shapes do not fit each other or the temperature is not positive.

    Source:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536.
    """
    check_pixels(student_pixels, teacher_pixels)
    if pixel_weights is not None:
        check_of_pixels(pixel_weights, "pixel_weights", student_pixels)
    if student_pixels.shape[1] == 1:  # a softmax over 0 and the logit is its sigmoid
        student_pixels, teacher_pixels = (torch.cat([torch.zeros_like(x), x], 1) for x in (student_pixels, teacher_pixels))
        beta = 0.0
    return dist(student_pixels, teacher_pixels, beta=beta, gamma=gamma, temperature=temperature, weight=pixel_weights)


class PixelDIST(nn.Module):
    """Module form of :func:`pixel_dist`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, student_pixels: Tensor, teacher_pixels: Tensor, pixel_weights: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`pixel_dist`."""
        return pixel_dist(
            student_pixels,
            teacher_pixels,
            pixel_weights,
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )
