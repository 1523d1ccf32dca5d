"""What a detector finds, out of what it computed: candidates with the probability of every class, and the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from detkd.types import Detections

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import DensePredictions, DetectorOutputs, RegionPredictions

SCORE = 0.05  # candidates below are noise to whoever learns from them
OVERLAP = 0.6  # IoU from which two boxes of a class are taken for one object
CANDIDATES = 1000  # of an image that are looked at
LIMIT = 100  # detections of an image, as COCO counts them


@torch.no_grad()
def candidates(outputs: DetectorOutputs) -> Detections:
    """Every box that a detector considered, before any is dropped.

    Args:
        outputs: Of a dense detector, or of a two-stage detector whose second stage has run.

    Returns:
        One box an anchor or region, N of them an image, padded where images have unlike many regions.
    """
    return _of_anchors(outputs.heads[0]) if outputs.regions is None else _of_regions(outputs.regions)


def _of_anchors(head: DensePredictions) -> Detections:
    logits = head.logits.float()
    scores = logits.softmax(1)[:, 1:] if head.softmax else logits.sigmoid()
    if head.known is not None:  # a cache holds no boxes elsewhere
        scores = scores * head.known[:, None]
    return Detections(head.boxes.float(), scores.transpose(1, 2))


def _of_regions(regions: RegionPredictions) -> Detections:
    scores = regions.logits.float().softmax(1)[:, 1:]
    best = scores.argmax(1).clamp(max=regions.boxes.shape[1] - 1)
    boxes = regions.boxes.float()[torch.arange(len(best), device=best.device), best]
    counts = [len(proposals) for proposals in regions.proposals]
    return Detections(*(pad_sequence(list(part.split(counts)), batch_first=True) for part in (boxes, scores)))


@torch.no_grad()
def detect(found: Detections) -> Detections:
    """The best candidates of each image, of which no two of a class overlap much; needs torchvision.

    Args:
        found: From :func:`candidates`.

    Returns:
        At most ``LIMIT`` an image, best first, with their places among the candidates.
    """
    from torchvision.ops import batched_nms

    best, classes = found.scores.max(2)
    boxes, scores, origins = [], [], []
    for index, image in enumerate(best):
        top = image.topk(min(CANDIDATES, len(image))).indices
        top = top[image[top] > SCORE]
        kept = top[batched_nms(found.boxes[index, top], image[top], classes[index, top], OVERLAP)[:LIMIT]]
        boxes.append(found.boxes[index, kept])
        scores.append(found.scores[index, kept])
        origins.append(kept)
    return Detections(_stack(boxes), _stack(scores), _stack(origins))


def _stack(parts: list[Tensor]) -> Tensor:
    """Rows of images padded with zeros to the largest count, and to one at least: losses take the best of an image's."""
    return pad_sequence([*parts, parts[0].new_zeros(1, *parts[0].shape[1:])], batch_first=True)[:-1]
