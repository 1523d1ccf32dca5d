"""What the adapter says of a Faster R-CNN, against what torchvision itself computes."""

from __future__ import annotations

import copy
import math
import pickle
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image

from detkd.adapters.base import TwoStageAdapter
from detkd.adapters.torchvision import FasterRCNNAdapter
from detkd.errors import AdapterError
from tests.adapters.tiny import CHANNELS, CLASSES, SIZE, STRIDES, faster_rcnn, hold_everything, images, mask_rcnn, targets

if TYPE_CHECKING:
    from detkd.types import DetectorOutputs

PIXELS = (SIZE, SIZE)
ANCHORS = 3 * sum(math.ceil(SIZE / stride) ** 2 for stride in STRIDES)


def attached(model: nn.Module) -> FasterRCNNAdapter:
    adapter = FasterRCNNAdapter(model)
    adapter.attach()
    return adapter


def trained(model: nn.Module, adapter: FasterRCNNAdapter, *counts: int) -> DetectorOutputs:
    """Outputs of a training pass on images with so many objects each."""
    model.train()(images(len(counts)), targets(*counts))
    return adapter.take_outputs()


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def outputs_of(module: nn.Module) -> list[Any]:
    """What a module returns from now on."""
    found: list[Any] = []
    module.register_forward_hook(lambda _, __, output: found.append(output))
    return found


def test_the_first_stage_is_what_torchvision_decodes() -> None:
    model = faster_rcnn().eval()
    adapter = attached(model)
    heads, generated = outputs_of(model.rpn.head), outputs_of(model.rpn.anchor_generator)
    with torch.no_grad():
        model(images())
    outputs = adapter.take_outputs()

    logits, deltas = concat_box_prediction_layers(*heads[0])
    anchors = generated[0]
    assert outputs.objectness is not None
    assert outputs.objectness.logits.shape == (2, 1, ANCHORS)
    torch.testing.assert_close(outputs.objectness.logits, logits.view(2, 1, -1))
    torch.testing.assert_close(outputs.objectness.boxes, model.rpn.box_coder.decode(deltas, anchors).view(2, -1, 4))
    torch.testing.assert_close(outputs.anchor_points, (anchors[0][:, :2] + anchors[0][:, 2:]) / 2)
    assert outputs.heads == ()
    # The anchors of one position follow each other, at steps of the stride from the corner.
    assert outputs.anchor_points[:6].tolist() == [[0, 0]] * 3 + [[8, 0]] * 3


def test_a_run_goes_as_far_as_the_first_stage_and_says_what_the_whole_model_says() -> None:
    model = faster_rcnn().eval()
    adapter = attached(model)
    with torch.no_grad():
        model(images())
        whole = adapter.take_outputs()
        model(images())
        adapter.run(images())  # what the pass before has left in the second stage is not this one's
    outputs = adapter.take_outputs()
    assert whole.regions is not None
    assert outputs.regions is None
    assert outputs.objectness is not None
    assert whole.objectness is not None
    torch.testing.assert_close(outputs.objectness, whole.objectness)
    for level, expected in zip(outputs.features, model.backbone(model.transform.normalize(images())).values(), strict=True):
        torch.testing.assert_close(level, expected.detach())
    with torch.enable_grad():
        adapter.run(images())
    assert adapter.take_outputs().features[0].requires_grad


def test_the_proposals_are_those_of_a_test_also_while_the_model_trains() -> None:
    model = faster_rcnn().eval()
    adapter = attached(model)
    with torch.no_grad():
        model(images())
    outputs = adapter.take_outputs()
    assert outputs.regions is not None
    model.train()
    found = adapter.propose(outputs, PIXELS)
    assert model.rpn.training
    assert [len(boxes) for boxes in found] == [20, 20]  # 40 in training
    for own, expected in zip(found, outputs.regions.proposals, strict=True):
        torch.testing.assert_close(own, expected)
    assert not any(boxes.requires_grad for boxes in adapter.propose(trained(model, adapter, 2, 2), PIXELS))


def test_the_second_stage_run_again_on_its_own_regions_says_the_same() -> None:
    model = faster_rcnn()
    adapter = attached(model)
    outputs = trained(model, adapter, 3, 0)
    assert outputs.regions is not None
    assert outputs.regions.logits.shape == (32, 1 + len(CLASSES))
    assert outputs.regions.boxes.shape == (32, len(CLASSES), 4)
    again = adapter.classify(outputs.features, outputs.regions.proposals, PIXELS)
    torch.testing.assert_close(again.logits, outputs.regions.logits)
    torch.testing.assert_close(again.boxes, outputs.regions.boxes)
    held = weakref.ref(again.logits)
    del again
    assert held() is None  # that was no pass of the model: nothing of it is captured


@pytest.mark.parametrize("build", [faster_rcnn, mask_rcnn])
def test_proposing_and_classifying_is_what_evaluation_does(build: Any) -> None:
    model = hold_everything(build().eval())
    model.roi_heads.mask_roi_pool = None  # of thousands of detections
    adapter = attached(model)
    assert isinstance(adapter, TwoStageAdapter)
    with torch.no_grad():
        adapter.run(images())
        outputs = adapter.take_outputs()
        regions = adapter.classify(outputs.features, adapter.propose(outputs, PIXELS), PIXELS)
        detections = model(images())
    scores = regions.logits.softmax(1)[:, 1:]
    counts = [len(boxes) for boxes in regions.proposals]
    for image, found in enumerate(detections):
        own = scores.split(counts)[image].flatten()
        order = own.argsort(descending=True)
        torch.testing.assert_close(own[order], found["scores"])
        boxes = clip_boxes_to_image(regions.boxes.split(counts)[image].flatten(0, 1), PIXELS)
        torch.testing.assert_close(boxes[order], found["boxes"])
        classes = torch.arange(len(own)) % len(CLASSES)
        assert (1 + classes[order]).tolist() == found["labels"].tolist()


@pytest.mark.parametrize("part", ["features", "objectness", "region logits", "region boxes"])
def test_gradients_reach_the_student(part: str) -> None:
    model = faster_rcnn()
    outputs = trained(model, attached(model), 3, 2)
    assert outputs.regions is not None
    assert outputs.objectness is not None
    value = {
        "features": outputs.features[-1],
        "objectness": outputs.objectness.logits + outputs.objectness.boxes.sum(),
        "region logits": outputs.regions.logits,
        "region boxes": outputs.regions.boxes,
    }[part]
    value.square().sum().backward()
    assert has_gradient(model.backbone)
    assert has_gradient(model.rpn.head) == (part == "objectness")
    assert has_gradient(model.roi_heads.box_head) == part.startswith("region")


def test_construction_leaves_modes_statistics_and_random_numbers_as_they_were() -> None:
    model = faster_rcnn().train()
    model.backbone.body["0"].eval()  # a user's frozen stem
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    FasterRCNNAdapter(model)
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), random)


def test_outputs_are_let_go_of_and_detaching_removes_every_hook() -> None:
    model = faster_rcnn()
    before = hooks(model)
    adapter = attached(model)
    adapter.attach()  # once more changes nothing
    assert hooks(model) == before + 4
    outputs = trained(model, adapter, 1, 1)
    held = [weakref.ref(level) for level in outputs.features]
    del outputs
    assert [level() for level in held] == [None] * 4
    with pytest.raises(AdapterError, match="ran no forward pass"):
        adapter.take_outputs()
    adapter.detach()
    assert hooks(model) == before
    model.train()(images(), targets(1, 1))
    with pytest.raises(AdapterError, match="is not attached"):
        adapter.take_outputs()


def test_a_hooked_model_is_copied_and_pickled_without_what_was_captured() -> None:
    model = faster_rcnn()
    adapter = attached(model)
    plain = len(pickle.dumps(model))
    model.train()(images(), targets(2, 2))  # tensors with a graph could be neither copied nor pickled
    assert len(pickle.dumps(model)) < plain + 10_000
    copy.deepcopy(model)
    assert adapter.take_outputs().regions is not None


def test_images_without_objects_and_regions_are_answered() -> None:
    model = faster_rcnn()
    adapter = attached(model)
    outputs = trained(model, adapter, 0, 0)
    assert outputs.regions is not None
    assert len(outputs.regions.logits) == 32  # background only

    empty = (torch.zeros(0, 4), outputs.regions.proposals[1])
    found = adapter.classify(outputs.features, empty, PIXELS)
    torch.testing.assert_close(found.logits, outputs.regions.logits[16:])
    none = adapter.classify(outputs.features, (torch.zeros(0, 4),) * 2, PIXELS)
    assert none.logits.shape == (0, 1 + len(CLASSES))
    assert none.boxes.shape == (0, len(CLASSES), 4)

    model.eval().rpn.score_thresh = 1.1  # no proposal is good enough
    assert [len(boxes) for boxes in adapter.propose(outputs, PIXELS)] == [0, 0]
    with torch.no_grad():
        model(images())
    regions = adapter.take_outputs().regions
    assert regions is not None
    assert regions.boxes.shape == (0, len(CLASSES), 4)


def test_it_works_in_half_precision_with_boxes_in_full() -> None:
    model = faster_rcnn()
    adapter = attached(model)
    exact = trained(model, adapter, 2, 1)
    assert exact.objectness is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = trained(model, adapter, 2, 1)
        assert outputs.regions is not None
        assert outputs.features[0].dtype == torch.bfloat16
        again = adapter.classify(outputs.features, outputs.regions.proposals, PIXELS)
        assert len(adapter.propose(outputs, PIXELS)[0]) == 20
    torch.testing.assert_close(again.logits, outputs.regions.logits)
    assert outputs.objectness is not None
    assert outputs.objectness.boxes.dtype == outputs.regions.boxes.dtype == torch.float32
    torch.testing.assert_close(outputs.objectness.boxes, exact.objectness.boxes, atol=0.5, rtol=0)
    outside = adapter.classify(outputs.features, outputs.regions.proposals, PIXELS)  # maps in half precision, weights not
    torch.testing.assert_close(outside.logits, again.logits.float(), atol=0.05, rtol=0.05)


def test_anchors_are_whole_pixels_beyond_what_half_precision_counts() -> None:
    model = faster_rcnn().eval()
    adapter = attached(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        adapter.run(images(1, 384))
    last = adapter.take_outputs().anchor_points[3 * 48 * 48 - 1]
    assert last.tolist() == [47 * 8, 47 * 8]


def test_levels_of_equal_stride_stay_apart() -> None:
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64)
    adapter = FasterRCNNAdapter(model.eval(), class_names=CLASSES)
    assert adapter.strides == (32, 32, 64)
    assert [len(level) for level in adapter.anchor_shapes] == [15, 15, 15]
    adapter.attach()
    with torch.no_grad():
        model(images(1, 64))
        outputs = adapter.take_outputs()
    assert outputs.regions is not None
    assert [tuple(level.shape[2:]) for level in outputs.features] == [(2, 2), (2, 2), (1, 1)]
    found = adapter.classify(outputs.features, outputs.regions.proposals, (64, 64))
    torch.testing.assert_close(found.logits, outputs.regions.logits)


def test_anchor_shapes_are_widths_and_heights_of_each_level() -> None:
    adapter = FasterRCNNAdapter(faster_rcnn())
    assert adapter.anchor_shapes[0] == ((22.0, 12.0), (16.0, 16.0), (12.0, 22.0))  # 16 px, ratios .5, 1 and 2, rounded
    assert [level[1] for level in adapter.anchor_shapes] == [(2.0 * stride,) * 2 for stride in STRIDES]
    assert adapter.feature_channels == (CHANNELS,) * 4
    assert adapter.stage_channels == ()


def test_a_mask_rcnn_trains_and_says_the_same_of_its_regions() -> None:
    model = mask_rcnn()
    adapter = attached(model)
    losses = model.train()(images(), targets(2, 1, masks=True))
    outputs = adapter.take_outputs()
    assert "loss_mask" in losses
    assert outputs.regions is not None
    found = adapter.classify(outputs.features, outputs.regions.proposals, PIXELS)
    torch.testing.assert_close(found.boxes, outputs.regions.boxes)


def test_class_names_are_asked_for_and_counted() -> None:
    model = faster_rcnn()
    assert FasterRCNNAdapter(model).class_names == CLASSES
    assert FasterRCNNAdapter(model, ["a", "b"]).class_names == ("a", "b")
    with pytest.raises(AdapterError, match="names for the 2 classes behind the background of FasterRCNN, but got 3"):
        FasterRCNNAdapter(model, ["background", "a", "b"])
    del model.class_names
    with pytest.raises(AdapterError, match="set `model.class_names`"):
        FasterRCNNAdapter(model)


def test_the_head_cannot_be_entered_in_the_middle() -> None:
    with pytest.raises(AdapterError, match="the one of FasterRCNN cannot"):
        FasterRCNNAdapter(faster_rcnn()).finish({})


def test_a_level_that_never_grows_has_no_stride() -> None:
    model = faster_rcnn()
    model.backbone.fpn.extra_blocks.register_forward_hook(
        lambda _, __, output: ([*output[0][:-1], output[0][-1].mean((2, 3), keepdim=True)], output[1])
    )
    with pytest.raises(AdapterError, match="a single position even at 1024"):
        FasterRCNNAdapter(model)
