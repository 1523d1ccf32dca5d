"""The names by which a loss may ask for tensors: the parameters of its ``forward``.

A loss works in one of several places. On feature maps, once for each common level; at the anchors, once for each dense head
that both models have (of a two-stage detector, on its region proposal network); on the regions that the student's second
stage was shown, or those that its mask head was; at the pixels of a segmenter, once for each head that both models have; on
the classes of a classifier, or on the attention of each of its layers. B images, C common classes, A anchors of the common
levels, R regions of all images, N detections of the teacher, M labels or mask prototypes; boxes are (x1, y1, x2, y2) in
pixels of the student's input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from detkd.boxes import iou

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from detkd.types import DensePredictions, DetectorOutputs, MaskPredictions, RegionPredictions, Targets

LEVEL_NAMES = {
    "student_feature": "feature map behind the loss's aligner, [B, C_t, H, W]",
    "teacher_feature": "feature map, [B, C_t, H, W]",
    "teacher_scores": "best class probability at each position, [B, 1, H, W]",
    "target_boxes": "labelled boxes, padded with zeros to the largest count, [B, M, 4]",
    "stride": "pixels of one step on the map, a float",
}
DENSE_NAMES = {
    "student_logits": "logits before the sigmoid of classes, or of objectness where C is 1, [B, C, A]",
    "teacher_logits": "logits before the sigmoid of classes, or of objectness where C is 1, [B, C, A]",
    "student_softmax_logits": "class logits of a softmax head, background first, [B, 1 + C, A]",
    "teacher_softmax_logits": "class logits of a softmax head, background first, [B, 1 + C, A]",
    "student_boxes": "decoded boxes, [B, A, 4]",
    "teacher_boxes": "decoded boxes, [B, A, 4]",
    "student_bins": "logits of each box side's distribution, [B, 4, R, A], or None",
    "teacher_bins": "logits of each box side's distribution, [B, 4, R, A], or None",
    "teacher_confidence": "best class probability at each anchor, [B, A]",
    "anchor_points": "centres of the anchors, [A, 2]",
    "target_boxes": "labelled boxes, padded with zeros to the largest count, [B, M, 4]",
    "image_size": "height and width of the student's input in pixels",
    "detected_boxes": "what the teacher detects, padded with zeros to the largest count, [B, N, 4]",
    "detected_scores": "probability of every class for each detection of the teacher, [B, N, C]",
}
MASK_NAMES = {
    "student_coefficients": "factors of the mask prototypes, [B, M, A]",
    "teacher_coefficients": "factors of the mask prototypes, [B, M, A]",
    "student_prototypes": "mask prototypes, [B, M, H, W]",
    "teacher_prototypes": "mask prototypes, [B, M, H, W]",
}
CROSSED_NAMES = {
    "crossed_logits": "class logits of the teacher's head on the student's features, [B, all classes, A]",
    "crossed_boxes": "decoded boxes of the teacher's head on the student's features, [B, A, 4]",
    "whole_teacher_logits": "class logits over all of the teacher's classes, [B, all classes, A]",
}
REGION_NAMES = {
    "student_softmax_logits": "class logits, background first, [R, 1 + C]",
    "teacher_softmax_logits": "class logits of the teacher on the same regions, background first, [R, 1 + C]",
    "student_boxes": "the region as refined for its labelled class, [R, 4]",
    "teacher_boxes": "the region as the teacher refines it for that class, [R, 4]",
    "class_boxes": "the region as the student refines it for each class, [R, C, 4], or [R, 1, 4] for all classes alike",
    "proposals": "the regions, [R, 4]",
    "proposal_images": "index of each region's image, [R]",
    "labels": "1 + the class of the object that a region overlaps by half or more, 0 for background, -1 if not common, [R]",
    "matched_boxes": "box of that object, [R, 4]; any where the label is not positive",
    "detected_boxes": "what the teacher detects, padded with zeros to the largest count, [B, N, 4]",
    "detected_scores": "probability of every class for each detection of the teacher, [B, N, C]",
}
REGION_MASK_NAMES = {
    "student_masks": "mask of the labelled class before the sigmoid, of each region with a label, [R, S, S]",
    "teacher_masks": "what the teacher's mask head says of the same regions, [R, S, S]",
}
# Of segmenters, where LEVEL_NAMES offers the two feature maps alone. K is 1 for a sigmoid, else the background is first.
PIXEL_NAMES = {
    "student_pixels": "logits of a softmax over K common classes, or of one sigmoid where K is 1, [B, K, H, W]",
    "teacher_pixels": "the same of the teacher, [B, K, H, W]",
    "pixel_weights": "how much each pixel counts: 0 where the label is ignored or the teacher says nothing, [B, H, W]",
    "pixel_labels": "index of the labelled channel, where K is 1 whether it is the class, -1 where ignored, [B, H, W]",
}
# Of classifiers, where LEVEL_NAMES offers the two features alone, those of sentences as [B, C_t, L, 1]; L tokens.
CLASS_NAMES = {
    "student_softmax_logits": "class logits, [B, C]; of samples of other classes than the common ones no row",
    "teacher_softmax_logits": "class logits, [B, C]; the same rows",
    "labels": "index of the class among the common ones, [B]; the same rows",
    "student_embedding": "what the last linear layer sees, [B, D]",
    "teacher_embedding": "what the last linear layer sees, [B, D_t]",
}
HIDDEN_NAMES = {"token_mask": "which tokens of a sentence are no padding, [B, L]"}
ATTENTION_NAMES = {
    "student_attention": "attention probabilities of a layer of the student's, [B, H, L, L]",
    "teacher_attention": "those of the teacher's layer at the same share of its depth, [B, H_t, L, L]",
    "token_mask": "which tokens of a sentence are no padding, [B, L]",
}
DETECTED_NAMES = {"detected_boxes", "detected_scores"}
SOFTMAX_NAMES = {"student_softmax_logits", "teacher_softmax_logits"}
NEEDS_CLASSES = {"student_logits", "teacher_logits", "detected_scores", *SOFTMAX_NAMES}  # in the same order in both
# What only a teacher with a head of the same kind can give, and what only one with a second stage can.
TEACHER_DENSE_NAMES = {
    "teacher_logits",
    "teacher_softmax_logits",
    "teacher_boxes",
    "teacher_bins",
    "teacher_confidence",
    "teacher_coefficients",
    "teacher_prototypes",
}
TEACHER_REGION_NAMES = {"teacher_softmax_logits", "teacher_boxes"}
OBJECT_OVERLAP = 0.5  # IoU from which a region is taken for an object's, as in Faster R-CNN


def dense_tensors(
    student: DetectorOutputs,
    teacher: DetectorOutputs,
    heads: tuple[DensePredictions, DensePredictions],
    target_boxes: Tensor,
    image_size: tuple[int, int],
) -> dict[str, Any]:
    """What is offered under ``DENSE_NAMES`` and ``MASK_NAMES`` for one pair of heads, but the teacher's detections."""
    own, other = heads[0], completed(heads[1], heads[0])
    kind = "softmax_logits" if own.softmax else "logits"
    return {
        f"student_{kind}": own.logits,
        f"teacher_{kind}": other.logits,
        "student_boxes": own.boxes,
        "teacher_boxes": other.boxes,
        "student_bins": own.bins,
        "teacher_bins": other.bins,
        "teacher_confidence": confidence(other),
        "anchor_points": student.anchor_points,
        "target_boxes": target_boxes,
        "image_size": image_size,
        "student_coefficients": own.coefficients,
        "teacher_coefficients": other.coefficients,
        "student_prototypes": student.prototypes,
        "teacher_prototypes": teacher.prototypes,
    }


def level_tensors(teacher: DetectorOutputs, target_boxes: Tensor, image_size: tuple[int, int]) -> list[Mapping[str, Any]]:
    """What is offered under ``LEVEL_NAMES`` on each level, but the student's feature, which waits for an aligner."""
    sizes = [feature.shape[2:] for feature in teacher.features]
    positions = [h * w for h, w in sizes]
    best = confidence(teacher.dense[0])
    scores = best.unflatten(1, (sum(positions), -1)).amax(2)[:, None].split(positions, -1)  # of a position's anchors
    return [
        {
            "teacher_feature": feature,
            "teacher_scores": part.unflatten(-1, tuple(size)),
            "target_boxes": target_boxes,
            "stride": image_size[0] / size[0],
        }
        for feature, part, size in zip(teacher.features, scores, sizes, strict=True)
    ]


def region_tensors(student: RegionPredictions, teacher: RegionPredictions | None, targets: Targets) -> dict[str, Any]:
    """What is offered under ``REGION_NAMES``, but the teacher's detections.

    Args:
        student: Its second stage on the regions that it was shown.
        teacher: The teacher's on the same regions, with the same classes; None where it has none.
        targets: The labels, whose classes count the common ones.
    """
    proposals, images = torch.cat(student.proposals), image_of(student.proposals)
    labels, matched = match(proposals, images, targets)
    offered = {
        "student_softmax_logits": student.logits,
        "student_boxes": _of_class(student.boxes, labels),
        "class_boxes": student.boxes,
        "proposals": proposals,
        "proposal_images": images,
        "labels": labels,
        "matched_boxes": matched,
    }
    if teacher is not None:
        offered |= {"teacher_softmax_logits": teacher.logits, "teacher_boxes": _of_class(teacher.boxes, labels)}
    return offered


def region_mask_tensors(student: MaskPredictions, teacher: MaskPredictions, targets: Targets) -> dict[str, Any]:
    """What is offered under ``REGION_MASK_NAMES``.

    Args:
        student: Its mask head on the regions that it was shown.
        teacher: The teacher's on the same regions, with the same classes.
        targets: The labels, whose classes count the common ones.
    """
    labels, _ = match(torch.cat(student.proposals), image_of(student.proposals), targets)
    rows = labels.gt(0).nonzero()[:, 0]
    classes = labels[rows] - 1
    return {"student_masks": student.logits[rows, classes], "teacher_masks": teacher.logits[rows, classes]}


def image_of(proposals: Sequence[Tensor]) -> Tensor:
    """Index of the image of each region, [R]."""
    counts = torch.tensor([len(boxes) for boxes in proposals], device=proposals[0].device)
    return torch.arange(len(proposals), device=counts.device).repeat_interleave(counts)


@torch.no_grad()
def match(proposals: Tensor, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The label and the box of the object that each region overlaps most; see ``labels`` and ``matched_boxes``."""
    if targets.boxes.shape[1] == 0:
        return torch.zeros_like(images), proposals
    boxes, classes = targets.boxes[images], targets.classes[images]  # [R, M, 4], [R, M]
    overlap, index = iou(proposals[:, None], boxes).max(1)
    rows = torch.arange(len(index), device=index.device)
    found = classes[rows, index]
    labels = torch.where(found < 0, -1, found + 1)
    return torch.where(overlap >= OBJECT_OVERLAP, labels, 0), boxes[rows, index]


def _of_class(boxes: Tensor, labels: Tensor) -> Tensor:
    """The boxes refined for the labelled classes, [R, 4], of [R, C, 4] or [R, 1, 4]; those of any class for no label."""
    return boxes[torch.arange(len(labels), device=labels.device), (labels - 1).clamp(0, boxes.shape[1] - 1)]


def completed(teacher: DensePredictions, student: DensePredictions) -> DensePredictions:
    """The teacher's predictions with the student's own boxes where a cache has none: there is nothing to learn there."""
    if teacher.known is None:
        return teacher
    boxes = torch.where(teacher.known[..., None], teacher.boxes, student.boxes.detach())
    bins = teacher.bins
    if bins is not None and student.bins is not None and bins.shape == student.bins.shape:
        bins = torch.where(teacher.known[:, None, None], bins, student.bins.detach())
    return replace(teacher, boxes=boxes, bins=bins)


def confidence(head: DensePredictions) -> Tensor:
    """Best class probability at each anchor, [B, A]."""
    with torch.no_grad():
        logits = head.logits.float()
        return logits.softmax(1)[:, 1:].amax(1) if head.softmax else logits.amax(1).sigmoid()
