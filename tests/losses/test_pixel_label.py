from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import PixelLabel, pixel_label
from tests.losses.pixels import HEIGHT, WIDTH, halves, pair, weights


def test_a_softmax_by_hand_counts_where_the_teacher_is_sure() -> None:
    # Sure of class 1 at the first pixel, undecided at the second; the student says 1/4 and 3/4.
    teacher = torch.tensor([[0.0, 5.0], [0.0, 0.1]]).T.reshape(1, 2, 1, 2)
    student = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    found = pixel_label(student, teacher)
    assert found.item() == pytest.approx(math.log(4), rel=1e-6)
    found.backward()
    assert not student.grad[..., 1].any()


def test_a_sigmoid_is_sure_of_no_as_of_yes() -> None:
    teacher = torch.tensor([4.0, -4.0, 0.5]).view(1, 1, 1, 3)
    student = torch.tensor([0.0, math.log(3.0), 7.0]).view(1, 1, 1, 3)
    found = pixel_label(student, teacher, torch.tensor([[[1.0, 3.0, 1.0]]]))
    assert found.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_threshold_decides_and_nothing_sure_costs_nothing(channels: int) -> None:
    student, teacher = pair(channels)
    all_of_them = pixel_label(student, teacher, threshold=0.01)
    assert pixel_label(student, teacher, threshold=0.9) != all_of_them
    loss = pixel_label(student.requires_grad_(), teacher / 100, threshold=0.9)
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()
    with pytest.raises(ArgumentError, match="threshold"):
        pixel_label(student, teacher, threshold=1.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_module_weights_and_boundaries_are_the_functions(channels: int) -> None:
    student, teacher = pair(channels)
    near = torch.ones(2, HEIGHT, WIDTH)
    near[:, :, 2:4] = 3
    found = PixelLabel(threshold=0.6, boundary_gain=2.0, radius=1)(student, teacher, weights(), halves())
    torch.testing.assert_close(found, pixel_label(student, teacher, weights() * near, threshold=0.6))


@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(channels: int) -> None:
    student, teacher = pair(channels, torch.float64)
    assert torch.autograd.gradcheck(lambda s: pixel_label(s, teacher, weights()), (student.requires_grad_(),))
