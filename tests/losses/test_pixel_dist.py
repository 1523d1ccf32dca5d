from __future__ import annotations

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import PixelDIST, dist, pixel_dist
from tests.losses.pixels import HEIGHT, WIDTH, pair, weights


def test_without_weights_it_is_dist_and_equal_weights_change_nothing() -> None:
    student, teacher = pair(3)
    expected = dist(student, teacher, beta=0.5, gamma=2.0, temperature=3.0)
    module = PixelDIST(beta=0.5, gamma=2.0, temperature=3.0)
    torch.testing.assert_close(pixel_dist(student, teacher, beta=0.5, gamma=2.0, temperature=3.0), expected)
    torch.testing.assert_close(module(student, teacher, torch.full((2, HEIGHT, WIDTH), 0.3)), expected)


def test_weights_are_how_often_a_pixel_stands_there() -> None:
    student, teacher = pair(3)
    often = (torch.arange(2 * HEIGHT * WIDTH) % 3).view(2, HEIGHT, WIDTH)  # 0, 1 or 2 times
    rows = [x.movedim(1, -1).reshape(-1, 3).repeat_interleave(often.flatten(), 0) for x in (student, teacher)]
    torch.testing.assert_close(pixel_dist(student, teacher, often.float()), dist(*rows))


def test_the_sigmoid_of_one_channel_relates_its_pixels() -> None:
    student, teacher = pair(1)
    p, q = (x.sigmoid().flatten() for x in (student, teacher))
    expected = 1 - torch.corrcoef(torch.stack([p, q]))[0, 1]
    torch.testing.assert_close(pixel_dist(student, teacher, beta=5.0), expected)
    torch.testing.assert_close(pixel_dist(student, student), torch.zeros(()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_weight_gives_no_loss_and_no_gradient(channels: int) -> None:
    student, teacher = pair(channels)
    loss = pixel_dist(student.requires_grad_(), teacher, torch.zeros(2, HEIGHT, WIDTH))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(channels: int) -> None:
    student, teacher = pair(channels, torch.float64)
    assert torch.autograd.gradcheck(lambda s: pixel_dist(s, teacher, weights()), (student.requires_grad_(),))


def test_weights_of_another_size_are_refused() -> None:
    student, teacher = pair(3)
    with pytest.raises(ArgumentError, match="pixel_weights"):
        pixel_dist(student, teacher, weights()[:1])
