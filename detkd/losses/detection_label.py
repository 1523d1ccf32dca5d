"""The detections of a teacher of any family as labels of a dense student."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.boxes import contains, generalized_iou, iou
from detkd.errors import ArgumentError
from detkd.losses._labels import check_detections, check_threshold, detection_scores
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor

# How much the student's score and its overlap count in the choice of anchors, as published.
SCORE_EXPONENT = 0.5
OVERLAP_EXPONENT = 6.0


def detection_label(
    student_logits: Tensor,
    student_boxes: Tensor,
    anchor_points: Tensor,
    detected_boxes: Tensor,
    detected_scores: Tensor,
    *,
    soft: bool = True,
    top: int = 10,
    threshold: float = 0.5,
    class_gain: float = 1.0,
    box_gain: float = 4.0,
) -> Tensor:
    r"""Train a sigmoid head on what a teacher detects, as if detections were labels with a probability for every class.

    .. math::
        \frac{1}{P} \Big[ g_c \sum_{a,c} \mathrm{BCE}(s_{a,c}, y_{a,c})
        + g_b \sum_a y_a \, (1 - \mathrm{GIoU}(b^s_a, b_{n(a)})) \Big], \quad y_a = \sum_c y_{a,c}, \;
        P = \max(1, \sum_a y_a)

    Each detection n claims the `top` anchors inside it with the highest alignment :math:`t = p^{0.5} \, \mathrm{IoU}^6`, p
    being the student's probability of the detection's best class; an anchor that several claim goes to the one with the
    highest IoU. What an anchor shall say, :math:`y_{a,c}`, is its detection's scores times its alignment, scaled so that
    the best anchor of a detection reaches its best IoU; 0 for anchors of no detection. No gradient flows through any of it.

    Args:
        student_logits: Class logits before the sigmoid, [B, C, A].
        student_boxes: Decoded boxes (x1, y1, x2, y2) in pixels, [B, A, 4].
        anchor_points: Anchor centres in pixels, [A, 2].
        detected_boxes: What the teacher detects, in pixels, padded with zeros to N boxes, [B, N, 4].
        detected_scores: Probability of each of the student's classes, padded with zeros, [B, N, C].
        soft: Take the scores as they are; otherwise the best class of a detection counts 1 where it reaches `threshold`,
            and all else 0.
        top: Most anchors of a detection, at least 1.
        threshold: Probability in (0, 1) that a detection must reach if not `soft`.
        class_gain: Weight of the classification part.
        box_gain: Weight of the localisation part.

    Returns:
        A float32 scalar.

    Raises:
        ArgumentError: If the shapes do not fit each other, or `top` or the threshold is out of range.

    Source:
        Assignment: Feng et al.: TOOD: Task-aligned One-stage Object Detection, ICCV 2021, arXiv:2108.07755; GIoU:
        Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    _check(student_logits, student_boxes, anchor_points, detected_boxes, detected_scores)
    check_threshold(threshold)
    if top < 1:
        raise ArgumentError(f"Expected argument `top` to be at least 1, but got {top}.")
    logits, boxes = accumulate(student_logits), accumulate(student_boxes)
    scores = detection_scores(detected_scores, soft, threshold)
    targets, located = assign(logits, boxes, anchor_points, accumulate(detected_boxes), scores, top)
    weight = targets.sum(-1)
    class_loss = F.binary_cross_entropy_with_logits(logits, targets.transpose(1, 2).to(logits.dtype), reduction="sum")
    box_loss = ((1 - generalized_iou(boxes, located)) * weight).sum()
    return (class_gain * class_loss + box_gain * box_loss) / weight.sum().clamp(min=1)


@torch.no_grad()
def assign(
    logits: Tensor, boxes: Tensor, anchor_points: Tensor, detected_boxes: Tensor, scores: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """What each anchor shall say: scores [B, A, C], zeros for anchors of no detection, and a box [B, A, 4]; constants.

    Args:
        logits: The student's class logits, [B, C, A].
        boxes: The student's boxes, [B, A, 4].
        anchor_points: Anchor centres, [A, 2].
        detected_boxes: Detections, [B, N, 4].
        scores: Probability of every class, [B, N, C]; a detection of zeros claims nothing.
        top: Most anchors of a detection.
    """
    (batch, detections, classes), anchors = scores.shape, logits.shape[-1]
    if not detections or not anchors:
        return scores.new_zeros(batch, anchors, classes), detected_boxes.new_zeros(batch, anchors, 4)
    best, kind = scores.max(-1, keepdim=True)  # [B, N, 1]
    around = detected_boxes[:, :, None]
    overlap = iou(around, boxes[:, None]) * (contains(around, anchor_points) & (best > 0))  # [B, N, A]
    confidence = logits.sigmoid().gather(1, kind.expand(-1, -1, anchors))
    alignment, claimed = (confidence**SCORE_EXPONENT * overlap**OVERLAP_EXPONENT).topk(min(top, anchors), -1)
    overlap = overlap.gather(-1, claimed)  # [B, N, K], as all of the claims
    owner = _settle(claimed, torch.where(alignment > 0, overlap, 0), anchors)  # [B, A]
    won = owner.gather(1, claimed.flatten(1)).view_as(claimed) == torch.arange(detections, device=owner.device)[:, None]
    alignment, overlap = alignment * won, overlap * won
    peak = alignment.amax(-1, keepdim=True).clamp(min=torch.finfo(alignment.dtype).tiny)
    share = (alignment / peak * overlap.amax(-1, keepdim=True)).flatten(1)
    share = share.new_zeros(batch, anchors).scatter_reduce(1, claimed.flatten(1), share, "amax")[..., None]
    owner = owner.clamp(max=detections - 1)[..., None]
    return share * scores.gather(1, owner.expand(-1, -1, classes)), detected_boxes.gather(1, owner.expand(-1, -1, 4))


def _settle(claimed: Tensor, overlap: Tensor, anchors: int) -> Tensor:
    """The detection that each anchor goes to, [B, A]: the claim of highest overlap, the first of equals; N for none.

    Maxima and minima, unlike sums, do not depend on the order in which a GPU takes them.

    Args:
        claimed: Anchors that each detection claims, [B, N, K].
        overlap: IoU of these claims, 0 where there is none, [B, N, K].
        anchors: Number A of anchors.
    """
    batch, detections, _ = claimed.shape
    flat, strength = claimed.flatten(1), overlap.flatten(1)
    highest = strength.new_zeros(batch, anchors).scatter_reduce(1, flat, strength, "amax")
    index = torch.arange(detections, device=claimed.device)[:, None].expand_as(claimed).flatten(1)
    wins = (strength > 0) & (strength == highest.gather(1, flat))
    nobody = flat.new_full((batch, anchors), detections)
    return nobody.scatter_reduce(1, flat, torch.where(wins, index, detections), "amin")


def _check(
    student_logits: Tensor, student_boxes: Tensor, anchor_points: Tensor, detected_boxes: Tensor, detected_scores: Tensor
) -> None:
    if student_logits.ndim != 3:
        raise ArgumentError(f"Expected argument `student_logits` to be [B, C, A], but got {tuple(student_logits.shape)}.")
    batch, classes, anchors = student_logits.shape
    for name, tensor, letters, shape in (
        ("student_boxes", student_boxes, "[B, A, 4]", (batch, anchors, 4)),
        ("anchor_points", anchor_points, "[A, 2]", (anchors, 2)),
    ):
        if tuple(tensor.shape) != shape:
            raise ArgumentError(
                f"Expected argument `{name}` to be {letters} = {shape} for logits [B, C, A], but got {tuple(tensor.shape)}."
            )
    check_detections(detected_boxes, detected_scores, classes)
    if detected_boxes.shape[0] != batch:
        raise ArgumentError(
            f"Expected argument `detected_boxes` to be of the student's {batch} images, but got {detected_boxes.shape[0]}."
        )


class DetectionLabel(nn.Module):
    """Module form of :func:`detection_label`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(
        self,
        soft: bool = True,
        top: int = 10,
        threshold: float = 0.5,
        class_gain: float = 1.0,
        box_gain: float = 4.0,
    ) -> None:
        super().__init__()
        self.soft = soft
        self.top = top
        self.threshold = threshold
        self.class_gain = class_gain
        self.box_gain = box_gain

    def forward(
        self,
        student_logits: Tensor,
        student_boxes: Tensor,
        anchor_points: Tensor,
        detected_boxes: Tensor,
        detected_scores: Tensor,
    ) -> Tensor:
        """Return the scalar loss; see :func:`detection_label`."""
        return detection_label(
            student_logits,
            student_boxes,
            anchor_points,
            detected_boxes,
            detected_scores,
            soft=self.soft,
            top=self.top,
            threshold=self.threshold,
            class_gain=self.class_gain,
            box_gain=self.box_gain,
        )
