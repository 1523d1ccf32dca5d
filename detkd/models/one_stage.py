"""Construction of torchvision's one-stage detectors, fitted to the input size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.models.detection import (
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
    ssdlite320_mobilenet_v3_large,
)

from detkd.models.two_stage import anchors

if TYPE_CHECKING:
    from torch import nn

    from detkd.models.architecture import Architecture


def retinanet(architecture: Architecture) -> nn.Module:
    """RetinaNet (Lin et al. 2017); its anchors are scaled to the input size as those of two-stage detectors."""
    build = retinanet_resnet50_fpn_v2 if architecture.name.endswith("_v2") else retinanet_resnet50_fpn
    model: nn.Module = build(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(architecture.class_names),
        min_size=architecture.imgsz,
        max_size=architecture.imgsz,
    )
    octaves = [4 * 2 ** (third / 3) for third in range(3)]
    model.anchor_generator = anchors((8, 16, 32, 64, 128), architecture.imgsz, octaves)
    return model


def fcos(architecture: Architecture) -> nn.Module:
    """FCOS (Tian et al. 2019); its levels share objects out by their strides, at any input size."""
    model: nn.Module = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(architecture.class_names),
        min_size=architecture.imgsz,
        max_size=architecture.imgsz,
    )
    return model


def ssdlite(architecture: Architecture) -> nn.Module:
    """SSDlite (Sandler et al. 2018) with MobileNetV3; its boxes are shares of the image, so that any input size will do."""
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=1 + len(architecture.class_names)
    )
    model.transform.fixed_size = (architecture.imgsz, architecture.imgsz)
    detector: nn.Module = model
    return detector
