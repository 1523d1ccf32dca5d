"""Instance masks of a segmenter that assembles them from prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import binary_kl
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def mask_kd(
    student_coefficients: Tensor,
    student_prototypes: Tensor,
    teacher_coefficients: Tensor,
    teacher_prototypes: Tensor,
    teacher_scores: Tensor,
    teacher_boxes: Tensor,
    image_size: tuple[int, int],
    *,
    top: int = 32,
) -> Tensor:
    r"""Distil the masks that coefficients and prototypes make together, on the teacher's best anchors.

    .. math::
        \frac{1}{\sum_k w_k} \sum_k w_k \, \mathrm{mean}_{i \in b_k} \mathrm{KL}(\sigma(m^t_{k,i}) \| \sigma(m^s_{k,i})),
        \quad m_k = \sum_j c_{k,j} P_j

    over the `top` anchors k of each image with the highest score :math:`w_k`, each inside the teacher's box
    :math:`b_k`. Prototypes of two models are two bases, which do not compare one by one; their masks do, and through them
    both coefficients and prototypes of the student learn.

    Args:
        student_coefficients: Factors of the prototypes at each anchor, [B, M, A].
        student_prototypes: Prototypes, [B, M, H, W].
        teacher_coefficients: The same of the teacher, [B, M', A]; receives no gradient.
        teacher_prototypes: The same of the teacher, [B, M', H', W'], resized where the size differs; receives no gradient.
        teacher_scores: The teacher's best class probability at each anchor, [B, A].
        teacher_boxes: The teacher's boxes in pixels, [B, A, 4].
        image_size: Height and width of the input in pixels.
        top: Most anchors of an image.

    Returns:
        A float32 scalar; 0 where all scores are 0.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        Mask assembly: Bolya et al.: YOLACT, ICCV 2019, arXiv:1904.02689; per-pixel divergence as in Hinton et al. 2015.
    """
    batch, _, anchors = student_coefficients.shape
    for name, tensor, shape in (
        ("teacher_coefficients", teacher_coefficients, (batch, teacher_prototypes.shape[1], anchors)),
        ("teacher_scores", teacher_scores, (batch, anchors)),
        ("teacher_boxes", teacher_boxes, (batch, anchors, 4)),
    ):
        if tuple(tensor.shape) != shape:
            raise ArgumentError(f"Expected argument `{name}` to be {shape}, but got {tuple(tensor.shape)}.")
    scores, chosen = teacher_scores.detach().float().topk(min(top, anchors), 1)  # [B, K]
    size = student_prototypes.shape[2:]
    with torch.no_grad():
        teacher = _assemble(teacher_coefficients, teacher_prototypes, chosen)
        if teacher.shape[2:] != size:
            teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False)
        boxes = teacher_boxes.float().gather(1, chosen[..., None].expand(-1, -1, 4))
        inside = _inside(boxes, size, image_size)
        weight = scores[..., None, None] * inside / inside.sum((2, 3), keepdim=True).clamp(min=1)
    student = _assemble(student_coefficients, student_prototypes, chosen)
    divergence = binary_kl(
        student.flatten(0, 1).flatten(1),
        teacher.flatten(0, 1).flatten(1),
        weight=weight.flatten(0, 1).flatten(1),
        reduction="sum",
    )
    return divergence / scores.sum().clamp(min=1e-6)


def _assemble(coefficients: Tensor, prototypes: Tensor, chosen: Tensor) -> Tensor:
    """Mask logits [B, K, H, W] of the chosen anchors [B, K]."""
    kept = accumulate(coefficients).gather(2, chosen[:, None].expand(-1, coefficients.shape[1], -1))
    return torch.einsum("bmk,bmhw->bkhw", kept, accumulate(prototypes))


def _inside(boxes: Tensor, size: torch.Size, image_size: tuple[int, int]) -> Tensor:
    """1 at the positions of a map whose centre lies in a box, [B, K, H, W]."""
    height, width = size
    y = (torch.arange(height, device=boxes.device)[:, None] + 0.5) * (image_size[0] / height)
    x = (torch.arange(width, device=boxes.device) + 0.5) * (image_size[1] / width)
    left, top, right, bottom = boxes[..., None, None].unbind(2)
    return ((x > left) & (x < right) & (y > top) & (y < bottom)).float()


class MaskKD(nn.Module):
    """Module form of :func:`mask_kd`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, top: int = 32) -> None:
        super().__init__()
        self.top = top

    def forward(
        self,
        student_coefficients: Tensor,
        student_prototypes: Tensor,
        teacher_coefficients: Tensor,
        teacher_prototypes: Tensor,
        teacher_confidence: Tensor,
        teacher_boxes: Tensor,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Return the scalar loss; see :func:`mask_kd`, the confidence being its scores."""
        return mask_kd(
            student_coefficients,
            student_prototypes,
            teacher_coefficients,
            teacher_prototypes,
            teacher_confidence,
            teacher_boxes,
            image_size,
            top=self.top,
        )
