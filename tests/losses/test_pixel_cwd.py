from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import PixelCWD, cwd, pixel_cwd
from detkd.memory import peak_memory
from tests.losses.pixels import HEIGHT, WIDTH, pair, weights


def test_value_by_hand_leaves_ignored_pixels_out_of_both_softmaxes() -> None:
    # Of two pixels that count, the teacher puts 3/4 on the first, the student 1/2; the third is large in both.
    teacher = torch.tensor([math.log(3.0), 0.0, 50.0]).view(1, 1, 1, 3)
    student = torch.tensor([0.0, 0.0, 99.0]).view(1, 1, 1, 3).requires_grad_()
    found = pixel_cwd(student, teacher, torch.tensor([[[1.0, 0.2, 0.0]]]), temperature=1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    found.backward()
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([-0.25, 0.25, 0.0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_ignored_pixels_it_is_cwd_at_temperature_4(channels: int) -> None:
    student, teacher = pair(channels)
    expected = cwd(student, teacher, temperature=4.0)
    torch.testing.assert_close(pixel_cwd(student, teacher), expected)
    torch.testing.assert_close(PixelCWD()(student, teacher, weights() + 1), expected)


def test_an_image_that_is_all_ignored_adds_nothing() -> None:
    student, teacher = pair(3)
    ones = torch.ones(2, HEIGHT, WIDTH)
    ones[1] = 0
    loss = pixel_cwd(student.requires_grad_(), teacher, ones)
    torch.testing.assert_close(loss, pixel_cwd(student[:1], teacher[:1]) / 2)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[1].any()


def test_ignored_pixels_take_no_memory_beside_the_gradient() -> None:
    student, teacher = torch.randn(4, 3, 96, 96, requires_grad=True), torch.randn(4, 3, 96, 96)
    seen = (torch.rand(4, 96, 96) < 0.9).float()
    peak = peak_memory(lambda: pixel_cwd(student, teacher, seen).backward())
    assert peak <= 1.05 * student.nbytes


def test_weights_of_another_size_are_refused() -> None:
    student, teacher = pair(3)
    with pytest.raises(ArgumentError, match="pixel_weights"):
        pixel_cwd(student, teacher, weights()[:, 1:])
