"""Construction of torchvision's two-stage detectors, from its own parts.

torchvision chose the sizes of anchors, and which level a region is pooled from, for images of 800 pixels. Both are scaled
to the input here, so that an object meets the same anchor and the same level at any input size, and a checkpoint that was
trained at one size means the same at another.

BatchNorm is trained everywhere: torchvision freezes it under ImageNet's weights, but from scratch a frozen one would
normalise by a mean of 0 and a variance of 1 for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small, resnet18, resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from detkd.models.backbones.ultralytics import YOLOV5N_CHANNELS, yolov5n_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.models.architecture import Architecture

PUBLISHED_SIZE = 800  # the shorter side of the images that torchvision's numbers were chosen for
CANONICAL_REGION = 224  # side of the region that is pooled from stride 16, at that size
RATIOS = (0.5, 1.0, 2.0)
SMALLEST_ANCHOR = 4.0  # pixels: a flat anchor would round to nothing below
FPN_CHANNELS = 256
HEAD_CHANNELS = 1024
POOLED = 7  # side of a region's features
MASK_POOLED = 14


def fasterrcnn_resnet50_fpn(architecture: Architecture) -> nn.Module:
    """Ren et al. 2015 with the pyramid of Lin et al. 2017."""
    backbone = _resnet50_fpn(architecture)
    return _faster_rcnn(architecture, backbone, anchors((4, 8, 16, 32, 64), architecture.imgsz))


def fasterrcnn_resnet50_fpn_v2(architecture: Architecture) -> nn.Module:
    """The same with deeper, normalised heads (Li et al. 2021)."""
    channels, hidden = _channels(architecture)
    return _faster_rcnn(
        architecture,
        _resnet50_fpn(architecture, norm_layer=nn.BatchNorm2d),
        anchors((4, 8, 16, 32, 64), architecture.imgsz),
        rpn_head=RPNHead(channels, len(RATIOS), conv_depth=2),
        box_head=FastRCNNConvFCHead((channels, POOLED, POOLED), [channels] * 4, [hidden], norm_layer=nn.BatchNorm2d),
    )


def fasterrcnn_mobilenet_v3_large_fpn(architecture: Architecture) -> nn.Module:
    """The detector for phones: two levels of stride 32 and one of 64, each with anchors of all sizes.

    torchvision drops regions of an objectness below .05 here. In training that can leave a batch without any, and its loss
    without a value; the number of regions is bounded anyway.
    """
    features = mobilenet_v3_large(weights=None, norm_layer=nn.BatchNorm2d).features
    backbone = _pyramid(architecture, features, {"13": 160, "16": 960})
    sizes = tuple(_anchor_side(stride, architecture.imgsz) for stride in (4, 8, 16, 32, 64))
    return _faster_rcnn(architecture, backbone, AnchorGenerator((sizes,) * 3, (RATIOS,) * 3))


def fasterrcnn_resnet18_fpn(architecture: Architecture) -> nn.Module:
    """A compact student of strides 8 to 64."""
    body = resnet18(weights=None, norm_layer=nn.BatchNorm2d)
    backbone = _pyramid(architecture, body, {"layer2": 128, "layer3": 256, "layer4": 512})
    return _faster_rcnn(architecture, backbone, anchors((8, 16, 32, 64), architecture.imgsz))


def fasterrcnn_mobilenet_v3_small_fpn(architecture: Architecture) -> nn.Module:
    """A still more compact student of strides 8 to 64: the last block of each stride enters the pyramid."""
    features = mobilenet_v3_small(weights=None, norm_layer=nn.BatchNorm2d).features
    backbone = _pyramid(architecture, features, {"3": 24, "8": 48, "12": 576})
    return _faster_rcnn(architecture, backbone, anchors((8, 16, 32, 64), architecture.imgsz))


def fasterrcnn_yolov5n_fpn(architecture: Architecture, **options: Any) -> nn.Module:
    """A teacher on the backbone of YOLOv5n, whose COCO weights are small; needs ultralytics."""
    backbone = _pyramid(architecture, yolov5n_layers(), YOLOV5N_CHANNELS)
    return _faster_rcnn(
        architecture,
        backbone,
        anchors((8, 16, 32, 64), architecture.imgsz),
        image_mean=[0.0, 0.0, 0.0],  # YOLO takes [0, 1] as it is
        image_std=[1.0, 1.0, 1.0],
        **options,
    )


def maskrcnn_yolov5n_fpn(architecture: Architecture) -> nn.Module:
    """The same with a mask head of four convolutions as wide as the pyramid."""
    channels, _ = _channels(architecture)
    return fasterrcnn_yolov5n_fpn(architecture, kind=MaskRCNN, **_mask_parts(architecture, channels))


def mask_rcnn(architecture: Architecture) -> nn.Module:
    """Mask R-CNN (He et al. 2017) as torchvision builds it, fitted to the input size."""
    build = maskrcnn_resnet50_fpn_v2 if architecture.name.endswith("_v2") else maskrcnn_resnet50_fpn
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(architecture.class_names),
        min_size=architecture.imgsz,
        max_size=architecture.imgsz,
        **_counts(architecture),
    )
    model.rpn.anchor_generator = anchors((4, 8, 16, 32, 64), architecture.imgsz)
    model.roi_heads.box_roi_pool = _pool(4, architecture.imgsz, POOLED)
    model.roi_heads.mask_roi_pool = _pool(4, architecture.imgsz, MASK_POOLED)
    detector: nn.Module = model
    return detector


def anchors(strides: Sequence[int], imgsz: int, octaves: Sequence[float] = (8.0,)) -> AnchorGenerator:
    """Anchors of three shapes at every position of each level.

    Args:
        strides: Of the levels.
        imgsz: Side of the input in pixels.
        octaves: Sides of a level's square anchors at 800 pixels, in strides; torchvision's two-stage detectors have 8.
    """
    sizes = tuple(tuple(_anchor_side(stride, imgsz, octave) for octave in octaves) for stride in strides)
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def _anchor_side(stride: int, imgsz: int, octave: float = 8.0) -> float:
    return max(octave * stride * imgsz / PUBLISHED_SIZE, SMALLEST_ANCHOR)


def _resnet50_fpn(architecture: Architecture, **options: Any) -> BackboneWithFPN:
    body = resnet50(weights=None, norm_layer=nn.BatchNorm2d)
    return _pyramid(architecture, body, {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}, **options)


def _pyramid(architecture: Architecture, body: nn.Module, taps: Mapping[str, int], **options: Any) -> BackboneWithFPN:
    """A feature pyramid on the outputs of some children of a body, given with their channels."""
    names = {tap: str(level) for level, tap in enumerate(taps)}
    return BackboneWithFPN(body, names, list(taps.values()), _channels(architecture)[0], **options)


def _faster_rcnn(
    architecture: Architecture,
    backbone: BackboneWithFPN,
    anchor_generator: AnchorGenerator,
    *,
    kind: type[FasterRCNN] = FasterRCNN,
    box_head: nn.Module | None = None,
    **options: Any,
) -> nn.Module:
    channels, hidden = _channels(architecture)
    levels = len(anchor_generator.sizes) - 1  # regions are not pooled from the coarsest
    model: nn.Module = kind(
        backbone,
        min_size=architecture.imgsz,  # with an equal maximum, a square batch is not resized
        max_size=architecture.imgsz,
        rpn_anchor_generator=anchor_generator,
        box_roi_pool=_pool(levels, architecture.imgsz, POOLED),
        box_head=TwoMLPHead(channels * POOLED**2, hidden) if box_head is None else box_head,
        box_predictor=FastRCNNPredictor(hidden, 1 + len(architecture.class_names)),
        **_counts(architecture),
        **options,
    )
    return model


def _mask_parts(architecture: Architecture, channels: int) -> dict[str, nn.Module]:
    """What a Mask R-CNN has beside a Faster R-CNN, on a pyramid of four levels."""
    return {
        "mask_roi_pool": _pool(3, architecture.imgsz, MASK_POOLED),
        "mask_head": MaskRCNNHeads(channels, (channels,) * 4, dilation=1),
        "mask_predictor": MaskRCNNPredictor(channels, channels, 1 + len(architecture.class_names)),
    }


def _pool(levels: int, imgsz: int, side: int) -> MultiScaleRoIAlign:
    names = [str(level) for level in range(levels)]
    scale = CANONICAL_REGION * imgsz / PUBLISHED_SIZE
    return MultiScaleRoIAlign(names, output_size=side, sampling_ratio=2, canonical_scale=scale)


def _counts(architecture: Architecture) -> dict[str, int]:
    counts = architecture.proposals
    assert counts is not None, "every builder of a two-stage detector has a default"
    return {
        "rpn_pre_nms_top_n_train": counts.pre_nms,
        "rpn_pre_nms_top_n_test": counts.pre_nms,
        "rpn_post_nms_top_n_train": counts.post_nms,
        "rpn_post_nms_top_n_test": counts.post_nms,
        "box_batch_size_per_image": counts.sampled,
    }


def _channels(architecture: Architecture) -> tuple[int, int]:
    """Channels of the pyramid and of the box head, multiples of 8."""
    width = architecture.width or 1.0
    pyramid, head = (max(8, 8 * round(channels * width / 8)) for channels in (FPN_CHANNELS, HEAD_CHANNELS))
    return pyramid, head
