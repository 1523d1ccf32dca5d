"""Localisation distillation: the distribution of every box side."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from detkd.boxes import contains, generalized_iou, iou
from detkd.errors import ArgumentError
from detkd.ops import kl_div
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor

SIDES = 4


def ld(
    student_bins: Tensor,
    teacher_bins: Tensor,
    positive_weight: Tensor,
    region_weight: Tensor | None = None,
    *,
    temperature: float = 10.0,
    positive_gain: float = 0.25,
    region_gain: float = 0.25,
) -> Tensor:
    r"""KL divergence over the bins of each box side, on positives and on the valuable localisation region.

    .. math::
        g_p \frac{\sum_a w_a \, \mathrm{KL}_a}{\max(1, \sum_a w_a)}
        + g_r \frac{\sum_a v_a \, \mathrm{KL}_a}{\max(1, \sum_a v_a)}

    with :math:`\mathrm{KL}_a` the mean over the four sides of :math:`T^2 \sum_r p^t_r (\log p^t_r - \log p^s_r)`.

    Args:
        student_bins: Logits over R bins of each side, [B, 4, R, A].
        teacher_bins: The same of the teacher; receives no gradient.
        positive_weight: Weight w of each anchor as a positive, [B, A]; usually the teacher's best class score.
        region_weight: Weight v of each anchor in the valuable region, [B, A], see :func:`valuable_region`; None leaves
            that part out.
        temperature: Softening T > 0.
        positive_gain: Weight of the part on positives.
        region_gain: Weight of the part on the valuable region.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes do not fit each other or the temperature is not positive.

    Source:
        Zheng et al.: Localization Distillation for Dense Object Detection, CVPR 2022, arXiv:2102.12252.
    """
    if student_bins.ndim != 4 or student_bins.shape[1] != SIDES:
        raise ArgumentError(
            f"Expected argument `student_bins` to be [B, 4, R, A], but got {tuple(student_bins.shape)}. A head without "
            "bins (reg_max 1) has no distribution to distil: use `box_ld`."
        )
    divergence = kl_div(student_bins, teacher_bins, 2, temperature, None, "none").mean(1)  # [B, A]
    return _weigh(divergence, positive_weight, region_weight, positive_gain, region_gain)


def _weigh(
    values: Tensor, positive_weight: Tensor, region_weight: Tensor | None, positive_gain: float, region_gain: float
) -> Tensor:
    loss = positive_gain * _weighted_mean(values, positive_weight, "positive_weight")
    if region_weight is not None:
        loss = loss + region_gain * _weighted_mean(values, region_weight, "region_weight")
    return loss


def _weighted_mean(values: Tensor, weight: Tensor, name: str) -> Tensor:
    if weight.shape != values.shape:
        raise ArgumentError(
            f"Expected argument `{name}` to be [B, A] = {tuple(values.shape)}, but got {tuple(weight.shape)}."
        )
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def valuable_region(teacher_scores: Tensor, teacher_boxes: Tensor, anchor_points: Tensor, target_boxes: Tensor) -> Tensor:
    """Weigh anchors where the teacher localises an object well although it does not classify it.

    An anchor inside a labelled box weighs the IoU of the teacher's box with that label (the best one where labels
    overlap), times one minus the teacher's score: what the score already counts as positive is not counted twice.
    Zheng et al. bound the region by the IoU of anchor boxes with labels; anchor-free heads have no anchor boxes, so the
    teacher's own box stands in for them.

    Args:
        teacher_scores: Best class probability of each anchor, [B, A].
        teacher_boxes: Decoded boxes in pixels, [B, A, 4].
        anchor_points: Anchor centres in pixels, [A, 2].
        target_boxes: Labelled boxes in pixels, padded with zeros to the largest count, [B, M, 4].

    Returns:
        Weights in [0, 1], [B, A], without gradient.
    """
    with torch.no_grad():
        if not target_boxes.shape[1]:
            return torch.zeros_like(teacher_scores, dtype=torch.float32)
        labels = target_boxes.float()[:, :, None]  # [B, M, 1, 4]
        quality = iou(teacher_boxes.float()[:, None], labels) * contains(labels, anchor_points.float())  # [B, M, A]
        return quality.amax(1) * (1 - teacher_scores.float())


def box_ld(
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    positive_weight: Tensor,
    region_weight: Tensor | None = None,
    *,
    positive_gain: float = 0.25,
    region_gain: float = 0.25,
) -> Tensor:
    r"""Localisation distillation for heads without bins: :func:`ld` with :math:`1 - \mathrm{GIoU}` in place of the KL.

    Args:
        student_boxes: Decoded boxes (x1, y1, x2, y2), [B, A, 4], in any unit shared with `teacher_boxes`.
        teacher_boxes: The same of the teacher; receives no gradient.
        positive_weight: See :func:`ld`.
        region_weight: See :func:`ld`.
        positive_gain: See :func:`ld`.
        region_gain: See :func:`ld`.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes do not fit each other.
    """
    if student_boxes.ndim != 3 or student_boxes.shape[-1] != SIDES or student_boxes.shape != teacher_boxes.shape:
        raise ArgumentError(
            f"Expected argument `teacher_boxes` to be [B, A, 4] like the student's {tuple(student_boxes.shape)}, but got "
            f"{tuple(teacher_boxes.shape)}."
        )
    distance = 1 - generalized_iou(accumulate(student_boxes), accumulate(teacher_boxes.detach()))
    return _weigh(distance, positive_weight, region_weight, positive_gain, region_gain)


class LD(nn.Module):
    """:func:`ld` with weights from the teacher's scores and the :func:`valuable_region` of the labels.

    Where a head has no bins, or the two heads have unlike ones, :func:`box_ld` takes its place.
    """

    default_weight: ClassVar[float] = 1 / 16  # the published code takes the mean over 16 or 17 bins where this is the sum

    def __init__(self, temperature: float = 10.0, positive_gain: float = 0.25, region_gain: float = 0.25) -> None:
        super().__init__()
        self.temperature = temperature
        self.positive_gain = positive_gain
        self.region_gain = region_gain

    def forward(
        self,
        student_bins: Tensor | None,
        teacher_bins: Tensor | None,
        student_boxes: Tensor,
        teacher_boxes: Tensor,
        teacher_confidence: Tensor,
        anchor_points: Tensor,
        target_boxes: Tensor,
    ) -> Tensor:
        """Return the scalar loss; the teacher's confidence [B, A] weighs positives, other shapes as in :func:`ld`."""
        scores = teacher_confidence.detach()
        region = valuable_region(scores, teacher_boxes, anchor_points, target_boxes)
        gains = {"positive_gain": self.positive_gain, "region_gain": self.region_gain}
        if student_bins is None or teacher_bins is None or student_bins.shape != teacher_bins.shape:
            return box_ld(student_boxes, teacher_boxes, scores, region, **gains)
        return ld(student_bins, teacher_bins, scores, region, temperature=self.temperature, **gains)
