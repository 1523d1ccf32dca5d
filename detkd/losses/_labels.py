"""What losses share that take a teacher's decisions as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is no probability between 0 and 1."""
    if not 0 < threshold < 1:
        raise ArgumentError(f"Expected argument `threshold` to lie between 0 and 1, but got {threshold}.")


def check_detections(detected_boxes: Tensor, detected_scores: Tensor, classes: int) -> None:
    """Refuse detections that are not [B, N, 4] with scores [B, N, C] of the student's C classes."""
    if detected_boxes.ndim != 3 or detected_boxes.shape[-1] != 4:
        raise ArgumentError(f"Expected argument `detected_boxes` to be [B, N, 4], but got {tuple(detected_boxes.shape)}.")
    expected = (*detected_boxes.shape[:2], classes)
    if tuple(detected_scores.shape) != expected or not classes:
        raise ArgumentError(
            f"Expected argument `detected_scores` to be [B, N, C] = {expected} of the student's classes, 1 or more, but "
            f"got {tuple(detected_scores.shape)}. Bring the teacher's classes into the student's order first."
        )


def detection_scores(detected_scores: Tensor, soft: bool, threshold: float) -> Tensor:
    """The scores of detections [B, N, C] that a student shall learn, in float32 or float64.

    Args:
        detected_scores: Probability of every class, [B, N, C].
        soft: Take the scores as they are; otherwise 1 for the best class of a detection, and 0 for all the others.
        threshold: What the best score must reach to become 1.
    """
    scores = accumulate(detected_scores)
    if soft:
        return scores
    best, kind = scores.max(-1, keepdim=True)
    return torch.zeros_like(scores).scatter(-1, kind, (best >= threshold).to(scores.dtype))
