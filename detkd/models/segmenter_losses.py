"""What a segmenter learns from labels: the class of each pixel, each class's overlap, and where objects end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHING = (
    1.0  # pixels added to both sides of Dice's fraction: a class that is nowhere, and is said to be nowhere, costs 0
)


def class_loss(logits: Tensor, classes: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, of one channel binary, in the weighted mean over the pixels that have a label.

    Args:
        logits: Of a softmax with the background first, [B, 1 + C, H, W], or of a sigmoid, [B, 1, H, W].
        classes: Labels, -1 where there is none, [B, H, W].
        class_weights: Weight of the background and of each class, [1 + C]; None for 1.

    Returns:
        A float32 scalar; 0 if no pixel has a label.
    """
    labels = classes.clamp(min=0)
    weights = (classes >= 0).float() if class_weights is None else (classes >= 0) * class_weights[labels]
    if logits.shape[1] == 1:
        losses = F.binary_cross_entropy_with_logits(logits[:, 0].float(), labels.float(), reduction="none")
    else:
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return _mean(losses, weights)


def dice_loss(logits: Tensor, classes: Tensor) -> Tensor:
    r"""Soft Dice: :math:`1 - 2 \sum_i p_i t_i / (\sum_i p_i + \sum_i t_i)`, in the mean over the classes.

    The sums run over the labelled pixels of the whole batch, because a picture seldom has all classes. The background is no
    class here.

    Args:
        logits: See :func:`class_loss`.
        classes: See :func:`class_loss`.

    Returns:
        A float32 scalar; 0 if no pixel has a label.

    Source:
        Milletari, Navab, Ahmadi: V-Net, 3DV 2016, arXiv:1606.04797; there with squares in the denominator.
    """
    single = logits.shape[1] == 1
    probabilities = logits.float().sigmoid() if single else logits.float().softmax(1)[:, 1:]
    indices = torch.arange(1, probabilities.shape[1] + 1, device=classes.device)
    truth = classes[:, None] == indices[:, None, None]
    probabilities = probabilities * (classes >= 0)[:, None]
    axes = (0, 2, 3)
    overlap = (probabilities * truth).sum(axes)
    sizes = probabilities.sum(axes) + truth.sum(axes)
    return (1 - (2 * overlap + SMOOTHING) / (sizes + SMOOTHING)).mean()


def boundary_loss(logits: Tensor, boundary: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy in the mean over the pixels that have a label.

    Args:
        logits: [B, H, W].
        boundary: Where objects end, [B, H, W] of bool.
        known: Where there is a label, [B, H, W] of bool.

    Returns:
        A float32 scalar; 0 if no pixel has a label.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), boundary.float(), reduction="none")
    return _mean(losses, known.float())


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1.0)
