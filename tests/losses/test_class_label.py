"""Hand-worked values of the teacher's decisions as labels."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import class_label

# Probabilities of 3/4 and 1/4, and of 1/2 each.
STUDENT = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
TEACHER = torch.tensor([[0.0, math.log(9.0)], [math.log(1.5), 0.0]])  # second class by .9, first by .6


def test_each_row_costs_the_log_of_the_decided_class() -> None:
    expected = (-math.log(0.25) - math.log(0.5)) / 2
    assert class_label(STUDENT, TEACHER).item() == pytest.approx(expected)


def test_a_row_of_which_the_teacher_is_not_sure_counts_nothing() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = class_label(student, TEACHER, threshold=0.7)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.25))
    assert student.grad[1].abs().max() == 0


def test_where_no_row_counts_the_loss_is_nothing() -> None:
    assert class_label(STUDENT, TEACHER, threshold=0.95).item() == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ArgumentError, match="threshold"):
        class_label(STUDENT, TEACHER, threshold=threshold)
