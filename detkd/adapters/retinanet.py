"""Adapter for torchvision's RetinaNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.torchvision_base import OneStageAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.models.detection import RetinaNet

    from detkd.adapters.base import DenseKind


class RetinaNetAdapter(OneStageAdapter):
    """Watches a RetinaNet.

    Args:
        model: A ``torchvision.models.detection.RetinaNet``, whose labels start at 1.
        class_names: Names of its classes without the background; None reads ``model.class_names``.

    Raises:
        AdapterError: If the classes have no names, or not as many as the model has classes.
    """

    dense: DenseKind = "sigmoid"

    def __init__(self, model: RetinaNet, class_names: Sequence[str] | None = None) -> None:
        super().__init__(model, class_names, model.head.classification_head.num_classes)
