"""Adapter for torchvision's SSD and SSDlite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.torchvision_base import OneStageAdapter
from detkd.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.models.detection.ssd import SSD

    from detkd.adapters.base import DenseKind


class SSDAdapter(OneStageAdapter):
    """Watches an SSD, whose default boxes are shares of the image: their pixels are those at the size it is made for.

    Strides are whole numbers here; those of its coarsest levels, whose grids divide no image evenly, are rounded.

    Args:
        model: A ``torchvision.models.detection.ssd.SSD`` with as many default boxes at every position of every level, as
            SSDlite has.
        class_names: Names of its classes without the background; None reads ``model.class_names``.

    Raises:
        AdapterError: If its levels differ in the number of default boxes, as SSD300's do; if the classes have no names, or
            not as many as the model has classes.
    """

    dense: DenseKind = "softmax"

    def __init__(self, model: SSD, class_names: Sequence[str] | None = None) -> None:
        counts = model.anchor_generator.num_anchors_per_location()
        if len(set(counts)) > 1:
            raise AdapterError(
                f"Expected an SSD with as many default boxes at every position, but its levels have {counts}. Build it "
                "with equally many `aspect_ratios` for every level."
            )
        width, height = model.transform.fixed_size
        super().__init__(model, class_names, model.head.classification_head.num_columns, fixed_size=(height, width))
