"""Instance masks of a second stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import binary_kl

if TYPE_CHECKING:
    from torch import Tensor


def region_mask(student_masks: Tensor, teacher_masks: Tensor) -> Tensor:
    r"""Distil what a mask head says of each pixel of a region: the mean of :math:`\mathrm{KL}(\sigma(t) \| \sigma(s))`.

    Both heads look at the same regions, each with the mask of the region's own class, as Mask R-CNN trains them.

    Args:
        student_masks: Masks before the sigmoid, [R, S, S].
        teacher_masks: The same of the teacher; receives no gradient.

    Returns:
        A float32 scalar; 0 for no regions.

    Raises:
        ArgumentError: If the shapes differ.

    Source:
        Mask heads: He et al.: Mask R-CNN, ICCV 2017, arXiv:1703.06870; per-pixel divergence as in Hinton et al. 2015.
    """
    if student_masks.shape != teacher_masks.shape:
        raise ArgumentError(
            f"Expected argument `teacher_masks` to have the shape of `student_masks` {tuple(student_masks.shape)}, but "
            f"got {tuple(teacher_masks.shape)}. Take mask heads of the same resolution."
        )
    return binary_kl(student_masks, teacher_masks, reduction="mean")


class RegionMask(nn.Module):
    """Module form of :func:`region_mask`."""

    default_weight: ClassVar[float] = 1.0

    def forward(self, student_masks: Tensor, teacher_masks: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`region_mask`."""
        return region_mask(student_masks, teacher_masks)
