"""How much each of several teachers counts, for each image of a batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from detkd.boxes import iou
from detkd.vocabulary import image_of

if TYPE_CHECKING:
    from detkd.types import (
        ClassifierOutputs,
        DensePredictions,
        Detections,
        DetectorOutputs,
        MaskPredictions,
        PixelPredictions,
        RegionPredictions,
        SegmenterOutputs,
        Targets,
    )

EnsembleName = Literal["mean", "ca_mkd"]
LEAST = 1e-6  # likelihood of an object that a detector misses altogether


def confidence_weights(losses: Tensor) -> Tensor:
    r"""Weights of K teachers for each image from their losses on its labels.

    .. math:: w_k = \frac{1}{K - 1} \Big(1 - \frac{\exp L_k}{\sum_j \exp L_j}\Big)

    A teacher that errs more counts less; the weights of an image sum up to 1. Only those that know its labels are compared:
    where that is one, it counts alone, and where nobody does, all count alike.

    Args:
        losses: Loss of each teacher on each image, [K, B]; infinite where it knows none of its labels.

    Returns:
        Weights, [K, B]; all 1 for a single teacher.

    Source:
        Zhang et al.: Confidence-Aware Multi-Teacher Knowledge Distillation, ICASSP 2022, arXiv:2201.00007, equation 4.
    """
    known = losses != torch.inf
    count = known.sum(0)
    errs = losses.masked_fill(~known, -torch.inf).softmax(0)  # NaN where nobody knows
    weights = torch.where(count > 1, (1 - errs) * known / (count - 1).clamp(min=1), known.to(errs.dtype))
    return torch.where(count > 0, weights, 1 / len(losses))


@torch.no_grad()
def label_loss(teacher: Detections, targets: Targets) -> Tensor:
    r"""How badly a detector finds the labelled objects of each image.

    The mean over the objects of :math:`-\log \max_a p_{c}(a) \, \mathrm{IoU}(b_a, b)`: the best candidate must both name
    the class and hit the box. It takes the place of the cross-entropy that CA-MKD weighs classifiers by.

    Args:
        teacher: Its candidates, see :func:`detkd.detections.candidates`, classes in the order that `targets` counts in.
        targets: The labels; objects of class -1 are left out.

    Returns:
        [B], infinite for an image without such objects.
    """
    real = targets.classes >= 0
    nothing = teacher.boxes.new_full((len(teacher.boxes),), torch.inf)
    if not real.any():
        return nothing
    if not teacher.boxes.shape[1]:
        return torch.where(real.any(1), -math.log(LEAST), nothing)
    index = targets.classes.clamp(min=0)[..., None].expand(-1, -1, teacher.scores.shape[1])
    scores = teacher.scores.transpose(1, 2).gather(1, index)  # [B, M, N]
    hits = scores * iou(teacher.boxes[:, None], targets.boxes[:, :, None])
    losses = -hits.amax(2).clamp(min=LEAST).log()
    return torch.where(real.any(1), (losses * real).sum(1) / real.sum(1).clamp(min=1), nothing)


@torch.no_grad()
def pixel_label_loss(teacher: PixelPredictions, labels: Tensor) -> Tensor:
    """How badly each image's pixels are said: the mean of their cross-entropy with the labels.

    Args:
        teacher: What it says of the classes, [B, K, H, W]; everywhere, also where it found nothing.
        labels: Channel of each pixel, or whether it is the class where K is 1; -1 where ignored, [B, H, W].

    Returns:
        [B], infinite for an image whose pixels are all ignored.
    """
    known, logits = labels >= 0, teacher.logits.float()
    if teacher.softmax:
        losses = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits[:, 0], labels.clamp(min=0).float(), reduction="none")
    count = known.sum((1, 2))
    return torch.where(count > 0, (losses * known).sum((1, 2)) / count.clamp(min=1), torch.inf)


class _ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by one factor an image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * factors.to(gradient.dtype).view(-1, *[1] * (gradient.ndim - 1)), None


def scale_gradients(student: DetectorOutputs, factors: Tensor) -> DetectorOutputs:
    """Outputs of the same values, through which each image's gradient is multiplied by its factor, [B].

    A loss that is a sum over images is weighted by image so, whatever the loss is; only what it reports is not.
    """

    def scaled(x: Tensor) -> Tensor:
        return _scaled(x, factors)

    def dense(head: DensePredictions) -> DensePredictions:
        return replace(
            head,
            logits=scaled(head.logits),
            boxes=scaled(head.boxes),
            bins=None if head.bins is None else scaled(head.bins),
            coefficients=None if head.coefficients is None else scaled(head.coefficients),
        )

    return replace(
        student,
        features=tuple(scaled(feature) for feature in student.features),
        heads=tuple(dense(head) for head in student.heads),
        stages=tuple((scaled(box), scaled(scores)) for box, scores in student.stages),
        prototypes=None if student.prototypes is None else scaled(student.prototypes),
        objectness=None if student.objectness is None else dense(student.objectness),
        regions=None if student.regions is None else _scaled_regions(student.regions, factors),
        masks=None if student.masks is None else _scaled_masks(student.masks, factors),
    )


def scale_pixel_gradients(student: SegmenterOutputs, factors: Tensor) -> SegmenterOutputs:
    """The same for a segmenter; see :func:`scale_gradients`."""
    return replace(
        student,
        features=tuple(_scaled(feature, factors) for feature in student.features),
        heads=tuple(replace(head, logits=_scaled(head.logits, factors)) for head in student.heads),
    )


@torch.no_grad()
def class_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """A classifier's cross-entropy on each label, as CA-MKD weighs teachers by.

    Args:
        logits: [B, C].
        labels: Index of the class, -1 where it is not among them, [B].

    Returns:
        [B], infinite where the label is -1.
    """
    losses = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none")
    return losses.masked_fill(labels == -1, torch.inf)


def scale_class_gradients(student: ClassifierOutputs, factors: Tensor) -> ClassifierOutputs:
    """The same for a classifier; see :func:`scale_gradients`."""
    return replace(
        student,
        features=tuple(_scaled(feature, factors) for feature in student.features),
        logits=_scaled(student.logits, factors),
        embedding=_scaled(student.embedding, factors),
        attentions=tuple(_scaled(attention, factors) for attention in student.attentions),
    )


def _scaled(x: Tensor, factors: Tensor) -> Tensor:
    return cast("Tensor", _ScaledGradient.apply(x, factors))


def _scaled_regions(regions: RegionPredictions, factors: Tensor) -> RegionPredictions:
    by_region = factors[image_of(regions.proposals)]
    return replace(
        regions,
        logits=_ScaledGradient.apply(regions.logits, by_region),
        boxes=_ScaledGradient.apply(regions.boxes, by_region),
    )


def _scaled_masks(masks: MaskPredictions, factors: Tensor) -> MaskPredictions:
    return replace(masks, logits=_ScaledGradient.apply(masks.logits, factors[image_of(masks.proposals)]))
