"""Which parts of an image are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import nn

from detkd.errors import ArgumentError
from detkd.losses._relations import gram, unit
from detkd.ops._common import accumulate, check_same_positions

if TYPE_CHECKING:
    from torch import Tensor


def pairwise(student_feature: Tensor, teacher_feature: Tensor, *, size: int = 16) -> Tensor:
    r"""Mean squared difference of the cosine similarities between the parts of a map.

    .. math::
        \frac{1}{N P^2} \sum_{n,i,j} (a^s_{n,i,j} - a^t_{n,i,j})^2,
        \quad a_{i,j} = \frac{f_i^\top f_j}{\|f_i\|_2 \|f_j\|_2}

    of P nodes, the largest value of each channel in square patches that do not overlap, as small as the grid allows (of one
    pixel on a map that fits the grid). Only nodes of one map are compared, so teacher and student may have any number of
    channels and no aligner stands between. A node whose features are (almost) all 0 counts as less alike to all others,
    which bounds its gradient. Each image takes memory for P² ≤ `size`⁴ similarities.

    Args:
        student_feature: Feature map of the student, [N, C, H, W].
        teacher_feature: Feature map of the teacher, [N, C', H, W]; receives no gradient.
        size: Most nodes along each side.

    Returns:
        A float32 scalar; 0 for an empty input.

    Raises:
        ArgumentError: If the images or positions differ, or the grid has no node.

    Source:
        Liu et al.: Structured Knowledge Distillation for Dense Prediction, TPAMI 2020 (CVPR 2019 for segmentation alone),
        arXiv:1903.04197; max pooling and the default weight as in its code, which pools to 3 × 3 nodes or fewer.
    """
    check_same_positions(student_feature, teacher_feature)
    if size < 1:
        raise ArgumentError(f"Expected argument `size` to be at least 1, but got {size}.")
    if not student_feature.numel():
        return accumulate(student_feature).sum()
    return (_similarities(student_feature, size) - _similarities(teacher_feature.detach(), size)).square().mean()


def _similarities(feature: Tensor, size: int) -> Tensor:
    """Cosines between all pairs of nodes, [N, P, P]."""
    patch = -(-max(feature.shape[2:]) // size)
    nodes = F.max_pool2d(accumulate(feature), patch, ceil_mode=True)
    return gram(unit(nodes.flatten(2).mT))


class Pairwise(nn.Module):
    """Module form of :func:`pairwise`."""

    default_weight: ClassVar[float] = 1.0
    aligner: ClassVar[str] = "none"

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.size = size

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`pairwise`."""
        return pairwise(student_feature, teacher_feature, size=self.size)
