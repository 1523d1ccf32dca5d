"""The detections of a teacher of any family as labels of a student's second stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.boxes import encode_boxes, iou
from detkd.errors import ArgumentError
from detkd.losses._labels import check_detections, check_threshold, detection_scores
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor

MATCHING_IOU = 0.5
SMOOTH_BELOW = 1 / 9  # offsets closer than that are squared, as in Faster R-CNN


def region_label(
    student_logits: Tensor,
    class_boxes: Tensor,
    proposals: Tensor,
    proposal_images: Tensor,
    detected_boxes: Tensor,
    detected_scores: Tensor,
    *,
    soft: bool = True,
    threshold: float = 0.5,
    box_gain: float = 1.0,
) -> Tensor:
    r"""Train a second stage on what a teacher detects, as if detections were labels with a probability for every class.

    .. math::
        \frac{1}{R} \Big[ - \sum_{r,k} y_{r,k} \log p^s_{r,k}
        + g_b \sum_r m_r \, \mathrm{smooth}_1 \big( d(b^s_r) - d(b_{n(r)}) \big) \Big]

    Each region r is matched to the detection n of its image with the highest IoU, at least 0.5. Its foreground has the mass
    :math:`m = \max_c s_c` of the detection's scores, spread over the classes in proportion to them, and the background the
    rest; a region without a detection is all background. d are the offsets from the proposal
    (:func:`detkd.boxes.encode_boxes`), here of the box that the student refined for the detection's best class.

    Args:
        student_logits: Class logits of a softmax, background first, [R, 1 + C].
        class_boxes: The regions as the student refined them for each class, (x1, y1, x2, y2), [R, C, 4], or [R, 1, 4] where
            it refines all classes alike.
        proposals: The regions, [R, 4].
        proposal_images: Index of each region's image in the batch, [R], integers.
        detected_boxes: What the teacher detects, padded with zeros to N boxes, [B, N, 4].
        detected_scores: Probability of each of the student's classes, padded with zeros, [B, N, C].
        soft: Take the scores as they are; otherwise the best class of a detection counts 1 where it reaches `threshold`,
            and a detection that does not reach it is none.
        threshold: Probability in (0, 1) that a detection must reach if not `soft`.
        box_gain: Weight of the localisation part.

    Returns:
        A float32 scalar; 0 without regions.

    Raises:
        ArgumentError: If the shapes do not fit each other or the threshold is out of range.

    Source:
        Decisions of a teacher as labels: Lee: Pseudo-Label, ICML 2013 workshop; the loss of a second stage: Ren et al.:
        Faster R-CNN, NeurIPS 2015, arXiv:1506.01497.
    """
    _check(student_logits, class_boxes, proposals, proposal_images)
    check_detections(detected_boxes, detected_scores, student_logits.shape[1] - 1)
    check_threshold(threshold)
    references, scores = accumulate(proposals.detach()), detection_scores(detected_scores, soft, threshold)
    located, matched = _match(references, proposal_images, accumulate(detected_boxes), scores)
    mass, kind = matched.max(1)
    spread = matched / matched.sum(1, keepdim=True).clamp(min=torch.finfo(matched.dtype).tiny)
    target = torch.cat((1 - mass[:, None], mass[:, None] * spread), 1)
    class_loss = -(target * accumulate(student_logits).log_softmax(1)).sum()
    column = kind if class_boxes.shape[1] > 1 else torch.zeros_like(kind)
    refined = accumulate(class_boxes).gather(1, column[:, None, None].expand(-1, 1, 4)).squeeze(1)
    gap = encode_boxes(refined, references) - encode_boxes(located, references)
    errors = F.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="none", beta=SMOOTH_BELOW).sum(1)
    return (class_loss + box_gain * (mass * errors).sum()) / max(len(proposals), 1)


@torch.no_grad()
def _match(proposals: Tensor, images: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Box [R, 4] and scores [R, C] of each region's detection; scores are zeros where it has none."""
    if not boxes.shape[1]:
        return proposals, scores.new_zeros(len(proposals), scores.shape[2])
    overlap = iou(proposals[:, None], boxes[images]) * scores.amax(-1)[images].gt(0)  # [R, N]
    quality, index = overlap.max(1)
    return boxes[images, index], scores[images, index] * (quality >= MATCHING_IOU)[:, None]


def _check(student_logits: Tensor, class_boxes: Tensor, proposals: Tensor, proposal_images: Tensor) -> None:
    if student_logits.ndim != 2:
        raise ArgumentError(f"Expected argument `student_logits` to be [R, 1 + C], but got {tuple(student_logits.shape)}.")
    regions, classes = student_logits.shape[0], student_logits.shape[1] - 1
    if tuple(class_boxes.shape) not in {(regions, classes, 4), (regions, 1, 4)}:
        raise ArgumentError(
            f"Expected argument `class_boxes` to be [R, C, 4] = {(regions, classes, 4)} or [R, 1, 4], but got "
            f"{tuple(class_boxes.shape)}."
        )
    if tuple(proposals.shape) != (regions, 4):
        raise ArgumentError(
            f"Expected argument `proposals` to be [R, 4] = {(regions, 4)}, but got {tuple(proposals.shape)}."
        )
    if tuple(proposal_images.shape) != (regions,) or proposal_images.is_floating_point():
        raise ArgumentError(
            f"Expected argument `proposal_images` to be integers [R] = {(regions,)}, but got {proposal_images.dtype} "
            f"{tuple(proposal_images.shape)}."
        )


class RegionLabel(nn.Module):
    """Module form of :func:`region_label`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, soft: bool = True, threshold: float = 0.5, box_gain: float = 1.0) -> None:
        super().__init__()
        self.soft = soft
        self.threshold = threshold
        self.box_gain = box_gain

    def forward(
        self,
        student_softmax_logits: Tensor,
        class_boxes: Tensor,
        proposals: Tensor,
        proposal_images: Tensor,
        detected_boxes: Tensor,
        detected_scores: Tensor,
    ) -> Tensor:
        """Return the scalar loss; see :func:`region_label`."""
        return region_label(
            student_softmax_logits,
            class_boxes,
            proposals,
            proposal_images,
            detected_boxes,
            detected_scores,
            soft=self.soft,
            threshold=self.threshold,
            box_gain=self.box_gain,
        )
