"""What the adapter says of each family, against what the model itself decodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.errors import AdapterError
from tests.adapters.families import DETECTORS, SEGMENTERS, build

SIZE = 64
DFL_FREE = {"yolo26n", "yolo26n-p2", "yolo26n-seg"}
END_TO_END = {*DFL_FREE, "yolov10n"}


@pytest.mark.parametrize("name", [*DETECTORS, *SEGMENTERS])
def test_outputs_are_what_the_model_decodes(name: str) -> None:
    model = build(name).eval()
    adapter = UltralyticsAdapter(model)
    adapter.attach()
    head = model.model[-1]
    with torch.no_grad():
        # One head after the other: as it decodes them itself, x and y of corners.
        head.xyxy, head.end2end = True, False
        decoded = model(torch.rand(2, 3, SIZE, SIZE))[0]
    outputs = adapter.take_outputs()
    adapter.detach()

    decoded = decoded[0] if isinstance(decoded, tuple) else decoded
    first = outputs.heads[0]
    torch.testing.assert_close(first.boxes, decoded[:, :4].transpose(1, 2))
    torch.testing.assert_close(first.logits.sigmoid(), decoded[:, 4:6])
    anchors = sum((SIZE // s) ** 2 for s in adapter.strides)
    assert first.logits.shape == (2, 2, anchors)
    assert outputs.anchor_points.shape == (anchors, 2)
    assert (first.bins is None) == (name in DFL_FREE)
    assert len(outputs.heads) == (2 if name in END_TO_END else 1)
    assert [f.shape[1] for f in outputs.features] == list(adapter.feature_channels)
    assert [tuple(m.shape[1] for m in pair) for pair in outputs.stages] == list(adapter.stage_channels)
    if name in SEGMENTERS:
        torch.testing.assert_close(first.coefficients, decoded[:, 6:])
        assert outputs.prototypes.shape[:2] == (2, first.coefficients.shape[1])
    else:
        assert first.coefficients is None
        assert outputs.prototypes is None


@pytest.mark.parametrize("name", DETECTORS)
def test_the_head_finished_from_its_own_stages_says_the_same(name: str) -> None:
    model = build(name).eval()
    adapter = UltralyticsAdapter(model)
    adapter.attach()
    with torch.no_grad():
        model(torch.rand(1, 3, SIZE, SIZE))
        outputs = adapter.take_outputs()
        finished = adapter.finish(dict(enumerate(outputs.stages)))
    torch.testing.assert_close(finished.logits, outputs.heads[0].logits)
    torch.testing.assert_close(finished.boxes, outputs.heads[0].boxes)


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n", "yolo26n-seg"])
def test_training_and_evaluation_offer_the_same(name: str) -> None:
    model = build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
            module.track_running_stats = False  # batch statistics in both modes
            module.running_mean = module.running_var = None
    adapter = UltralyticsAdapter(model)
    adapter.attach()
    images, found = torch.rand(2, 3, SIZE, SIZE), []
    for mode in (True, False):
        with torch.no_grad():
            model.train(mode)(images)
        found.append(adapter.take_outputs())
    for one, other in zip(found[0].heads, found[1].heads, strict=True):
        torch.testing.assert_close(one.logits, other.logits)
        torch.testing.assert_close(one.boxes, other.boxes)


def test_what_is_no_detector_or_was_fused_is_refused() -> None:
    with pytest.raises(AdapterError, match="ending in Linear"):
        UltralyticsAdapter(nn.ModuleDict({"model": nn.Sequential(nn.Linear(1, 1))}))
    fused = build("yolo26n").eval()
    fused.model[-1].end2end = True
    fused.fuse(verbose=False)
    with pytest.raises(AdapterError, match="fused for inference"):
        UltralyticsAdapter(fused)
