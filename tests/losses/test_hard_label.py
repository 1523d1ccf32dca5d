from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import CrossKD, HardLabel, bckd, hard_label


def test_value_by_hand() -> None:
    # The teacher decides on the first anchor's first class; the student says 0 everywhere: four times ln 2.
    teacher = torch.tensor([[[3.0, -3.0], [-3.0, -3.0]]])
    boxes = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 1]]])
    beside = torch.tensor([[[1.0, 0, 2, 1], [5, 5, 6, 6]]])  # GIoU 0 for the first; the second is not decided on
    found = hard_label(torch.zeros(1, 2, 2), teacher, beside, boxes, class_gain=2.0, box_gain=3.0)
    assert found.item() == pytest.approx(2 * 4 * math.log(2) + 3 * 1, rel=1e-6)


def test_no_decision_is_background_everywhere() -> None:
    boxes = torch.rand(1, 3, 4).cumsum(-1)
    found = hard_label(torch.zeros(1, 2, 3), torch.full((1, 2, 3), -9.0), boxes, boxes + 1)
    assert found.item() == pytest.approx(6 * math.log(2), rel=1e-6)


def test_the_threshold_decides() -> None:
    logits, boxes = torch.randn(2, 3, 5), torch.rand(2, 5, 4).cumsum(-1)
    teacher = torch.full((2, 3, 5), math.log(0.3 / 0.7))
    high, low = (hard_label(logits, teacher, boxes, boxes, threshold=t) for t in (0.31, 0.29))
    assert high != low
    torch.testing.assert_close(HardLabel(threshold=0.29)(logits, teacher, boxes, boxes), low)
    for threshold in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="threshold"):
            hard_label(logits, teacher, boxes, boxes, threshold=threshold)


def test_gradcheck() -> None:
    student = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 2, 3, dtype=torch.float64)
    boxes = torch.tensor([[0.0, 0, 4, 5], [1, 1, 6, 7], [2, 0, 3, 9]], dtype=torch.float64)[None]
    moved = (boxes + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, b: hard_label(s, teacher, b, boxes), (student, moved))


def test_cross_kd_is_bckd_on_crossed_predictions() -> None:
    logits, own, boxes = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.rand(2, 5, 4).cumsum(-1)
    found = CrossKD(class_gain=2.0, box_gain=0.5)(logits, own, boxes + 0.1, boxes)
    torch.testing.assert_close(found, bckd(logits, own, boxes + 0.1, boxes, class_gain=2.0, box_gain=0.5))
