"""What losses share that compare two segmenters pixel by pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor


def check_pixels(student_pixels: Tensor, teacher_pixels: Tensor) -> None:
    """Refuse what are not logits of the same pixels, [B, K, H, W] with K of 1 or more."""
    check_pair(student_pixels, teacher_pixels)
    if student_pixels.ndim != 4 or not student_pixels.shape[1]:
        raise ArgumentError(
            f"Expected argument `student_pixels` to be [B, K, H, W] with K of 1 or more, but got "
            f"{tuple(student_pixels.shape)}."
        )


def check_of_pixels(values: Tensor, name: str, pixels: Tensor) -> None:
    """Refuse what has not one value for each pixel of logits [B, K, H, W]."""
    expected = (pixels.shape[0], *pixels.shape[2:])
    if tuple(values.shape) != expected:
        raise ArgumentError(f"Expected argument `{name}` to be [B, H, W] = {expected}, but got {tuple(values.shape)}.")


def weigh(
    pixels: Tensor, pixel_weights: Tensor | None, pixel_labels: Tensor | None, boundary_gain: float, radius: int
) -> Tensor:
    """The weight of each pixel of logits [B, K, H, W], [B, H, W] in float32 or float64.

    Args:
        pixels: The logits.
        pixel_weights: Weights, [B, H, W]; None for 1 everywhere.
        pixel_labels: Labels, [B, H, W], -1 where there is none; needed for a gain alone.
        boundary_gain: What is added to 1, as a factor, where the label changes; ≥ 0.
        radius: Pixels from such a change, along rows and columns, to which the gain reaches; ≥ 1.

    Raises:
        ArgumentError: If anything of this does not fit.
    """
    if not boundary_gain >= 0:
        raise ArgumentError(f"Expected argument `boundary_gain` to be at least 0, but got {boundary_gain}.")
    if pixel_weights is None:
        dtype = torch.promote_types(pixels.dtype, torch.float32)
        weights = torch.ones((), dtype=dtype, device=pixels.device).expand(pixels.shape[0], *pixels.shape[2:])
    else:
        check_of_pixels(pixel_weights, "pixel_weights", pixels)
        weights = accumulate(pixel_weights.detach())
    if not boundary_gain:
        return weights
    if pixel_labels is None:
        raise ArgumentError("Expected argument `pixel_labels` beside a `boundary_gain`, but got None.")
    check_of_pixels(pixel_labels, "pixel_labels", pixels)
    return weights * (1 + boundary_gain * near_boundary(pixel_labels, radius))


def near_boundary(pixel_labels: Tensor, radius: int) -> Tensor:
    """Where a label changes within some pixels along rows and columns, [B, H, W] of bool; -1 is no label."""
    if radius < 1:
        raise ArgumentError(f"Expected argument `radius` to be at least 1, but got {radius}.")
    labels, known = pixel_labels.float(), pixel_labels >= 0  # no GPU pools integers
    highest = _window_max(labels.masked_fill(~known, -torch.inf), radius)
    lowest = -_window_max(-labels.masked_fill(~known, torch.inf), radius)
    return highest > lowest  # where nothing is known, -inf > inf


def _window_max(values: Tensor, radius: int) -> Tensor:
    """Maximum over a square window around each pixel: along rows first, then along columns."""
    side = 2 * radius + 1
    rows = F.max_pool2d(values[:, None], (1, side), 1, (0, radius))
    return F.max_pool2d(rows, (side, 1), 1, (radius, 0))[:, 0]


def weighted_mean(total: Tensor, weights: Tensor) -> Tensor:
    """A sum of weighted losses, over the sum of the weights; where that is 0, so is the loss."""
    weight = weights.sum()
    return total / torch.where(weight > 0, weight, torch.ones_like(weight)).to(total.dtype)
