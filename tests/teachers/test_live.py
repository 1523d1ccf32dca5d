"""A teacher that runs on the student's batch."""

from __future__ import annotations

import torch

from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.teachers.live import LiveTeacher
from tests.adapters.families import build


def test_boxes_are_decoded_exactly_whatever_the_teacher_computes_in() -> None:
    """In bfloat16 a side of some hundred pixels would be off by whole pixels."""
    model = build("yolov8n")
    for branch in model.model[-1].cv2:
        torch.nn.init.normal_(branch[-1].bias)  # boxes from scratch are all alike
    teacher = LiveTeacher(UltralyticsAdapter(model), precision="bfloat16")
    teacher.attach()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = teacher.run(torch.rand(1, 3, 64, 64))
    teacher.detach()
    (head,) = outputs.heads
    assert head.bins is not None
    assert head.bins.dtype == torch.bfloat16
    strides = torch.tensor([8.0] * 64 + [16.0] * 16 + [32.0] * 4)
    sides = (head.bins.float().softmax(2) * torch.arange(16.0)[:, None]).sum(2) * strides  # [1, 4, A]
    corners = torch.cat((outputs.anchor_points.T - sides[:, :2], outputs.anchor_points.T + sides[:, 2:]), 1)
    torch.testing.assert_close(head.boxes, corners.transpose(1, 2), rtol=0, atol=1e-2)
