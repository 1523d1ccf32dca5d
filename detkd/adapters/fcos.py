"""Adapter for torchvision's FCOS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.base import POINT
from detkd.adapters.torchvision_base import OneStageAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torchvision.models.detection import FCOS

    from detkd.adapters.base import DenseKind


class FCOSAdapter(OneStageAdapter):
    """Watches an FCOS. Its logits are those of the classes alone; the centre-ness that ranks its detections stays outside.

    Args:
        model: A ``torchvision.models.detection.FCOS``, whose labels start at 1.
        class_names: Names of its classes without the background; None reads ``model.class_names``.

    Raises:
        AdapterError: If the classes have no names, or not as many as the model has classes.
    """

    dense: DenseKind = "sigmoid"

    def __init__(self, model: FCOS, class_names: Sequence[str] | None = None) -> None:
        super().__init__(model, class_names, model.head.classification_head.num_classes)
        # Its squares of a stride's side are units of length around a point: nothing is matched with them.
        self.anchor_shapes = (POINT,) * len(self.strides)

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        boxes: Tensor = self.model.box_coder.decode(deltas.to(anchors.dtype), anchors)
        return boxes
