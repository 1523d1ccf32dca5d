"""How far an exported model's outputs are from the student's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

DOUBTFUL = 0.05  # share of the detections that the last digit may decide on


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference of two models' outputs.

    Of each output the largest absolute difference is taken, as a share of its largest absolute value where that is above 1:
    of scores and logits it is the difference itself, of boxes a share of the picture. Infinite if shapes differ, or one of
    them says what is no number.
    """
    if [each.shape for each in found] != [each.shape for each in wanted] or not _are_numbers(*found, *wanted):
        return float("inf")
    shares = [
        float((one.double() - other.double()).abs().max()) / _size(other)
        for one, other in zip(found, wanted, strict=True)
        if other.numel()
    ]
    return max(shares, default=0.0)


def detection_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference of two models' detections, whatever their order.

    Each is compared with the nearest of the other model's of its label, by its box, its score and its mask, as
    :func:`difference` does. Whether a score passes a threshold, or two boxes overlap too much, can turn on the last digit:
    one detection in twenty may lack a partner. Infinite if more do, or one of them says what is no number.

    Args:
        found: Boxes [N, 4], labels [N], scores [N], and where there are any masks [N, 1, S, S].
        wanted: The student's.
    """
    if not _are_numbers(*found, *wanted):
        return float("inf")
    if not len(found[0]) or not len(wanted[0]):
        return 0.0 if len(found[0]) == len(wanted[0]) else float("inf")
    boxes = torch.cdist(found[0].double(), wanted[0].double(), p=float("inf")) / _size(wanted[0])
    scores = (found[2][:, None].double() - wanted[2].double()).abs()
    apart = torch.maximum(boxes, scores).masked_fill(found[1][:, None] != wanted[1], float("inf"))
    for mask, other in zip(found[3:], wanted[3:], strict=True):
        apart = torch.maximum(apart, torch.cdist(mask.flatten(1).double(), other.flatten(1).double(), p=float("inf")))
    nearest = torch.cat((apart.min(0).values, apart.min(1).values)).sort().values
    return float(nearest[-1 - int(DOUBTFUL * len(nearest))])


def _are_numbers(*tensors: Tensor) -> bool:
    """Whether all are finite: neither the maximum of Python nor torch's distances pass NaN on."""
    return all(bool(each.isfinite().all()) for each in tensors)


def _size(values: Tensor) -> float:
    return max(1.0, float(values.double().abs().max()))
