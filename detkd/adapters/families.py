"""The families of models that detkd knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from detkd.adapters.classifier import HookedClassifierAdapter, Taps
from detkd.adapters.fcos import FCOSAdapter
from detkd.adapters.retinanet import RetinaNetAdapter
from detkd.adapters.ssd import SSDAdapter
from detkd.adapters.torchvision import FasterRCNNAdapter
from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.adapters.unet import UNetAdapter, is_segmenter
from detkd.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from detkd.adapters.base import Adapter, DetectorAdapter

# A subclass is seen as its base: Mask R-CNN as Faster R-CNN, SSDlite as SSD.
ADAPTERS: dict[type[nn.Module], Callable[[Any], DetectorAdapter]] = {
    FasterRCNN: FasterRCNNAdapter,
    RetinaNet: RetinaNetAdapter,
    FCOS: FCOSAdapter,
    SSD: SSDAdapter,
}


def make_adapter(model: nn.Module) -> DetectorAdapter:
    """View a detector of any family that detkd knows; a torchvision model says its classes in ``model.class_names``.

    Raises:
        AdapterError: If the model is of no such family, or its adapter refuses it.
    """
    for family, adapter in ADAPTERS.items():
        if isinstance(model, family):
            return adapter(model)
    layers = getattr(model, "model", None)  # known without ultralytics, which need not be installed
    if isinstance(layers, nn.Sequential) and hasattr(layers[-1], "reg_max"):
        return UltralyticsAdapter(model)
    raise AdapterError(
        f"Expected a detector of ultralytics, or torchvision's {', '.join(family.__name__ for family in ADAPTERS)}, but "
        f"got {type(model).__name__}. Write an adapter for it (`detkd.adapters.base.DetectorAdapter`)."
    )


def make_any_adapter(model: nn.Module) -> Adapter:
    """View a model of any family, a classifier, a segmenter or a detector; see :func:`make_adapter`."""
    if isinstance(getattr(model, "taps", None), Taps):
        return HookedClassifierAdapter(model)
    return UNetAdapter(model) if is_segmenter(model) else make_adapter(model)
