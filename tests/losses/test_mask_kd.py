from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import MaskKD, mask_kd


def arguments(
    student: torch.Tensor, teacher: torch.Tensor, scores: torch.Tensor, boxes: torch.Tensor
) -> tuple[object, ...]:
    """One prototype of ones, so that a coefficient is the mask's logit everywhere."""
    ones = torch.ones(1, 1, 4, 4)
    return student, ones, teacher, ones, scores, boxes, (16, 16)


def test_value_by_hand() -> None:
    # Student's probability 1/2, teacher's 3/4 on the only anchor that scores.
    student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[math.log(3), 5.0]]])
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 16, 16]]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = mask_kd(*arguments(student, teacher, torch.tensor([[0.6, 0.0]]), boxes))
    assert found.item() == pytest.approx(divergence, rel=1e-5)


def test_only_what_lies_in_the_box_counts() -> None:
    prototypes = torch.zeros(1, 1, 4, 4, requires_grad=True)
    one, boxes = torch.ones(1, 1, 1), torch.tensor([[[4.0, 0.0, 12.0, 8.0]]])
    mask_kd(one, prototypes, one, torch.ones(1, 1, 4, 4), torch.ones(1, 1), boxes, (16, 16)).backward()
    expected = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(prototypes.grad[0, 0] != 0, expected)


def test_only_the_best_anchors_count_and_a_larger_teacher_is_resized() -> None:
    torch.manual_seed(1)
    coefficients = torch.randn(2, 3, 5, requires_grad=True)
    boxes = torch.tensor([0.0, 0.0, 16.0, 16.0]).expand(2, 5, 4)
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3]).expand(2, 5)
    maps = torch.randn(2, 3, 4, 4), torch.randn(2, 7, 8, 8)
    loss = MaskKD(top=2)(coefficients, maps[0], torch.randn(2, 7, 5), maps[1], scores, boxes, (16, 16))
    loss.backward()
    assert torch.equal(coefficients.grad.abs().sum((0, 1)) > 0, torch.tensor([False, True, False, True, False]))


def test_no_score_costs_nothing() -> None:
    boxes = torch.zeros(1, 2, 4)
    assert mask_kd(*arguments(torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(1, 2), boxes)).item() == 0


def test_misfits_are_named() -> None:
    boxes = torch.zeros(1, 2, 4)
    with pytest.raises(ArgumentError, match="teacher_scores"):
        mask_kd(*arguments(torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(1, 3), boxes))
