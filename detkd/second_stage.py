"""The second stage of a detector, run on regions of any origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from detkd.adapters.base import TwoStageAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from detkd.adapters.base import DetectorAdapter
    from detkd.types import DetectorOutputs, MaskPredictions, RegionPredictions


def with_regions(
    adapter: DetectorAdapter, outputs: DetectorOutputs, size: tuple[int, int], *, masks: bool = False
) -> DetectorOutputs:
    """The outputs of a two-stage detector with what its second stage says of its own proposals, if it has not run.

    Args:
        adapter: Of the detector; that of another has its outputs returned as they are.
        outputs: Its own, in its own frame.
        size: Height and width of its input in pixels.
        masks: Whether its mask head, if it has one, runs on them, too.
    """
    if outputs.regions is not None or not isinstance(adapter, TwoStageAdapter):
        return outputs
    proposals = adapter.propose(outputs, size)
    drawn = mask(adapter, outputs, proposals, size) if masks and adapter.draws_masks else None
    return replace(outputs, regions=classify(adapter, outputs, proposals, size), masks=drawn)


@torch.no_grad()
def classify(
    adapter: TwoStageAdapter, outputs: DetectorOutputs, proposals: Sequence[Tensor], size: tuple[int, int]
) -> RegionPredictions:
    """What a detector's box head says of regions, without gradient.

    Args:
        adapter: Of the detector.
        outputs: Its own, in its own frame.
        proposals: The regions of each image in pixels of its input, [R_i, 4] each.
        size: Height and width of its input in pixels.
    """
    return adapter.classify(_exact(outputs), proposals, size)


@torch.no_grad()
def mask(
    adapter: TwoStageAdapter, outputs: DetectorOutputs, proposals: Sequence[Tensor], size: tuple[int, int]
) -> MaskPredictions:
    """What a detector's mask head says of regions, without gradient; see :func:`classify`."""
    return adapter.mask(_exact(outputs), proposals, size)


def _exact(outputs: DetectorOutputs) -> list[Tensor]:
    """The features in float32: the first stage may have computed in half precision."""
    return [feature.float() for feature in outputs.features]
