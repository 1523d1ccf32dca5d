"""The adapter of any detector that detkd knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.ultralytics import UltralyticsAdapter

if TYPE_CHECKING:
    from torch import nn

    from detkd.adapters.base import DetectorAdapter


def make_adapter(model: nn.Module) -> DetectorAdapter:
    """Watch a detector of a known family.

    Raises:
        AdapterError: If it is none.
    """
    return UltralyticsAdapter(model)
