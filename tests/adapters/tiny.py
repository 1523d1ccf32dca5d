"""Torchvision's detectors, small enough for a test, and batches for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large
from torchvision.ops import MultiScaleRoIAlign

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 96
CLASSES = ("disc", "square")
CHANNELS = 32
STRIDES = (8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)


def faster_rcnn(**options: Any) -> FasterRCNN:
    """A Faster R-CNN of strides 8 to 64, the same on every call."""
    torch.manual_seed(0)
    return _named(FasterRCNN(pyramid(), **_two_stage(), **options))


def mask_rcnn() -> MaskRCNN:
    """The same with a mask head."""
    torch.manual_seed(0)
    heads = {
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1", "2"], 14, 2),
        "mask_head": MaskRCNNHeads(CHANNELS, (8,), 1),
        "mask_predictor": MaskRCNNPredictor(8, 8, 1 + len(CLASSES)),
    }
    return _named(MaskRCNN(pyramid(), **_two_stage(), **heads))


def retinanet() -> RetinaNet:
    """A RetinaNet of the same levels."""
    torch.manual_seed(0)
    model = RetinaNet(pyramid(), 1 + len(CLASSES), SIZE, SIZE, anchor_generator=generator((6, 8)))
    return _named(_loud(model, model.head.classification_head))


def fcos() -> FCOS:
    """An FCOS of the same levels."""
    torch.manual_seed(0)
    points = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    model = FCOS(pyramid(), 1 + len(CLASSES), SIZE, SIZE, anchor_generator=points)
    return _named(_loud(model, model.head.classification_head))


def ssdlite(size: int = SIZE) -> nn.Module:
    """An SSDlite of six levels for images of a size."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1 + len(CLASSES))
    model.transform.fixed_size = (size, size)
    return _named(model)


def pyramid() -> BackboneWithFPN:
    """MobileNetV3-small under a narrow pyramid."""
    features = mobilenet_v3_small(weights=None, norm_layer=nn.BatchNorm2d).features
    return BackboneWithFPN(features, {"3": "0", "8": "1", "12": "2"}, [24, 48, 576], CHANNELS)


def generator(octaves: Sequence[float]) -> AnchorGenerator:
    """Anchors of some strides' side on every level."""
    sizes = tuple(tuple(stride * octave / 4 for octave in octaves) for stride in STRIDES)
    return AnchorGenerator(sizes, (RATIOS,) * len(STRIDES))


def images(count: int = 2, size: int = SIZE) -> Tensor:
    """A batch in [0, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def targets(*counts: int, masks: bool = False) -> list[dict[str, Tensor]]:
    """Labels with so many objects in each image."""
    draw = torch.Generator().manual_seed(2)
    labels = []
    for count in counts:
        corner = torch.rand(count, 2, generator=draw) * SIZE / 2
        boxes = torch.cat((corner, corner + 8 + torch.rand(count, 2, generator=draw) * SIZE / 3), 1)
        label = {"boxes": boxes, "labels": torch.randint(1, 1 + len(CLASSES), (count,), generator=draw)}
        labels.append(label | ({"masks": torch.ones(count, SIZE, SIZE, dtype=torch.uint8)} if masks else {}))
    return labels


def hold_everything(model: Any) -> Any:
    """Let a detector's evaluation report every candidate, whatever its score or its overlap with others."""
    stage = getattr(model, "roi_heads", model)
    stage.score_thresh, stage.nms_thresh, stage.detections_per_img = -1.0, 1.0, 10**6
    stage.topk_candidates = 10**6
    return model


def _two_stage() -> dict[str, Any]:
    return {
        "min_size": SIZE,
        "max_size": SIZE,
        "rpn_anchor_generator": generator((8,)),
        "rpn_post_nms_top_n_train": 40,
        "rpn_post_nms_top_n_test": 20,
        "box_batch_size_per_image": 16,
        "box_roi_pool": MultiScaleRoIAlign(["0", "1", "2"], 7, 2, canonical_scale=24),
        "box_head": TwoMLPHead(CHANNELS * 49, 32),
        "box_predictor": FastRCNNPredictor(32, 1 + len(CLASSES)),
    }


def _loud(model: Any, head: Any) -> Any:
    """Spread the first scores, which are all nearly alike, so that an order among them means something."""
    nn.init.normal_(head.cls_logits.weight, std=0.5)
    return model


def _named(model: Any) -> Any:
    model.class_names = CLASSES
    return model
