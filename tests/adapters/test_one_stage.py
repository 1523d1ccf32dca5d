"""What the adapters say of torchvision's one-stage detectors, against every candidate that these report themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import clip_boxes_to_image

from detkd.adapters.base import POINT, TwoStageAdapter
from detkd.adapters.families import make_adapter
from detkd.adapters.fcos import FCOSAdapter
from detkd.adapters.retinanet import RetinaNetAdapter
from detkd.adapters.ssd import SSDAdapter
from detkd.adapters.torchvision import FasterRCNNAdapter
from detkd.adapters.torchvision_base import OneStageAdapter
from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.errors import AdapterError
from tests.adapters import tiny
from tests.adapters.families import build
from tests.adapters.tiny import CLASSES, SIZE, STRIDES, hold_everything, images, targets

FAMILIES = {"retinanet": tiny.retinanet, "fcos": tiny.fcos, "ssdlite": tiny.ssdlite}
each_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def attached(model: nn.Module) -> OneStageAdapter:
    adapter = make_adapter(model)
    assert isinstance(adapter, OneStageAdapter)
    adapter.attach()
    return adapter


def scores(adapter: OneStageAdapter, logits: Tensor, raw: dict[str, Tensor]) -> Tensor:
    """What the family ranks its detections by, [B, C, A]."""
    if adapter.dense == "softmax":
        return logits.softmax(1)[:, 1:]
    if "bbox_ctrness" in raw:
        return (logits.sigmoid() * raw["bbox_ctrness"].sigmoid().transpose(1, 2)).sqrt()
    return logits.sigmoid()


def in_order(scores: Tensor, boxes: Tensor) -> Tensor:
    """Scores and boxes in an order of their own: that of torchvision is arbitrary among equal scores."""
    key = torch.cat((1000 * scores[:, None], boxes), 1).double() @ torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0]).double().sqrt()
    return torch.cat((scores[:, None], boxes), 1)[key.argsort()]


@each_family
def test_outputs_are_what_the_model_decodes(make: Callable[[], Any]) -> None:
    model = hold_everything(make().eval())
    raw: dict[str, Tensor] = {}
    model.head.register_forward_hook(lambda _, __, output: raw.update(output))  # returns None: changes nothing
    adapter = attached(model)
    with torch.no_grad():
        detections = model(images())
    outputs = adapter.take_outputs()
    head = outputs.heads[0]
    anchors = len(outputs.anchor_points)
    assert head.softmax == (adapter.dense == "softmax")
    assert head.logits.shape == (2, len(CLASSES) + head.softmax, anchors)
    own = scores(adapter, head.logits, raw)
    for image, found in enumerate(detections):
        boxes = clip_boxes_to_image(head.boxes[image], (SIZE, SIZE))
        for index in range(len(CLASSES)):
            # torchvision reports the background column of its sigmoid heads, too: label 0.
            reported = found["labels"] == 1 + index
            theirs = in_order(found["scores"][reported], found["boxes"][reported])
            torch.testing.assert_close(in_order(own[image, index], boxes), theirs)


@each_family
def test_a_run_says_what_the_model_says_and_a_training_pass_reaches_the_student(make: Callable[[], Any]) -> None:
    model = make().eval()
    adapter = attached(model)
    with torch.no_grad():
        model(images())
        whole = adapter.take_outputs()
        adapter.run(images())
    torch.testing.assert_close(adapter.take_outputs().heads[0], whole.heads[0])
    model.train()(images(), targets(2, 0))
    outputs = adapter.take_outputs()
    (outputs.heads[0].logits.square().sum() + outputs.heads[0].boxes.sum() + outputs.features[-1].sum()).backward()
    for part in (model.backbone, model.head.classification_head, model.head.regression_head):
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())


@each_family
def test_levels_and_anchors_agree_with_the_outputs(make: Callable[[], Any]) -> None:
    model = make().eval()
    adapter = attached(model)
    with torch.no_grad():
        adapter.run(images())
    outputs = adapter.take_outputs()
    assert tuple(level.shape[1] for level in outputs.features) == adapter.feature_channels
    assert [-(-SIZE // stride) for stride in adapter.strides] == [level.shape[3] for level in outputs.features]
    positions = sum(level.shape[2] * level.shape[3] for level in outputs.features)
    (count,) = {len(shapes) for shapes in adapter.anchor_shapes}
    assert len(outputs.anchor_points) == positions * count
    grouped = outputs.anchor_points.view(positions, count, 2)
    torch.testing.assert_close(grouped, grouped[:, :1].expand_as(grouped))  # anchors of a position follow each other
    assert not isinstance(adapter, TwoStageAdapter)
    with pytest.raises(AdapterError, match="cannot"):
        adapter.finish({})


@each_family
def test_half_precision_leaves_boxes_whole(make: Callable[[], Any]) -> None:
    model = make().eval()
    adapter = attached(model)
    with torch.no_grad():
        adapter.run(images())
        exact = adapter.take_outputs().heads[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            adapter.run(images())
            half = adapter.take_outputs().heads[0]
    assert half.boxes.dtype == torch.float32
    torch.testing.assert_close(half.boxes, exact.boxes, atol=1.5, rtol=0.05)


def test_every_family_is_known_by_its_class() -> None:
    kinds = {
        FasterRCNNAdapter: tiny.faster_rcnn(),
        RetinaNetAdapter: tiny.retinanet(),
        FCOSAdapter: tiny.fcos(),
        SSDAdapter: tiny.ssdlite(),
        UltralyticsAdapter: build("yolo11n"),
    }
    for kind, model in kinds.items():
        assert type(make_adapter(model)) is kind
    assert type(make_adapter(tiny.mask_rcnn())) is FasterRCNNAdapter
    with pytest.raises(AdapterError, match="FasterRCNN, RetinaNet, FCOS, SSD, but got Linear"):
        make_adapter(nn.Linear(1, 1))


def test_the_kinds_of_heads_and_anchors() -> None:
    retina, points, boxes = (make_adapter(make()) for make in FAMILIES.values())
    assert (retina.dense, points.dense, boxes.dense) == ("sigmoid", "sigmoid", "softmax")
    assert retina.strides == points.strides == STRIDES
    assert points.anchor_shapes == (POINT,) * 4
    # Sizes 12 and 16 at stride 8; the anchor generator has all sizes of one ratio before the next ratio.
    assert retina.anchor_shapes[0] == ((16, 8), (22, 12), (12, 12), (16, 16), (8, 16), (12, 22))
    assert boxes.strides == (16, 32, 48, 96, 96, 96)
    # The first level's scale is .2 of the image: a square, a larger one, and two flat ones of ratios 2 and 3.
    torch.testing.assert_close(torch.tensor(boxes.anchor_shapes[0][0]), torch.tensor([0.2 * SIZE] * 2))
    torch.testing.assert_close(
        torch.tensor(boxes.anchor_shapes[0][2]), torch.tensor([0.2 * SIZE * 2**0.5, 0.2 * SIZE / 2**0.5])
    )


def test_names_must_be_as_many_as_classes() -> None:
    for make in FAMILIES.values():
        model = make()
        model.class_names = ("background", *CLASSES)
        with pytest.raises(AdapterError, match="names for the 2 classes behind the background"):
            make_adapter(model)


def test_an_ssd_of_unlike_many_boxes_is_refused() -> None:
    with torch.device("meta"):  # its shape is enough
        model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=3)
    with pytest.raises(AdapterError, match=r"\[4, 6, 6, 6, 4, 4\]"):
        SSDAdapter(model, CLASSES)
