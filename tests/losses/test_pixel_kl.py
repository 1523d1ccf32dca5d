"""Softened probabilities of pixels, by hand and against plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from detkd.errors import ArgumentError
from detkd.losses import PixelKL, pixel_kl, soft_kl
from detkd.losses._pixels import near_boundary
from tests.losses.pixels import HEIGHT, WIDTH, halves, pair, weights


def test_a_sigmoid_by_hand() -> None:
    # Teacher 3/4, student 1/2: 3/4 ln(3/2) + 1/4 ln(1/2); the second pixel agrees, the third is ignored.
    teacher = torch.tensor([math.log(3.0), 0.0, 9.0]).view(1, 1, 1, 3)
    found = pixel_kl(torch.zeros(1, 1, 1, 3), teacher, torch.tensor([[[1.0, 0.5, 0.0]]]), temperature=1.0)
    assert found.item() == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 1.5, rel=1e-5)


def test_a_softmax_by_hand_has_the_square_of_the_temperature() -> None:
    # At T = 2 the teacher's logits ln 4 and 0 are ln 2 and 0: 2/3 and 1/3 against 1/2 each.
    teacher = torch.tensor([math.log(4.0), 0.0]).view(1, 2, 1, 1)
    found = pixel_kl(torch.zeros(1, 2, 1, 1), teacher, temperature=2.0)
    assert found.item() == pytest.approx(4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)), rel=1e-5)


def test_one_channel_is_two_whose_background_is_zero() -> None:
    student, teacher = pair(1)
    two = (torch.cat([torch.zeros_like(x), x], 1) for x in (student, teacher))
    torch.testing.assert_close(pixel_kl(student, teacher, weights()), pixel_kl(*two, weights()))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_value_and_gradient_are_those_of_plain_pytorch(channels: int, layout: Any, dtype: torch.dtype) -> None:
    student, teacher = (x.to(memory_format=layout).requires_grad_() for x in pair(channels, dtype))
    found = pixel_kl(student, teacher, weights(), temperature=3.0)
    found.backward()
    own = student.detach().double().requires_grad_()
    both = [torch.cat([torch.zeros_like(x), x], 1) if channels == 1 else x for x in (own, teacher.detach().double())]
    s, t = ((x / 3).log_softmax(1) for x in both)
    rows = F.kl_div(s, t, reduction="none", log_target=True).sum(1)
    expected = 9 * (rows * weights()).sum() / weights().sum()
    expected.backward()
    assert found.dtype == torch.float32
    assert teacher.grad is None
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(student.grad, own.grad.to(dtype), rtol=0.02, atol=1e-5)


def test_without_weights_it_is_the_mean_over_pixels() -> None:
    student, teacher = pair(3)
    torch.testing.assert_close(pixel_kl(student, teacher), soft_kl(student, teacher))


@pytest.mark.parametrize("channels", [1, 3])
def test_no_weight_gives_no_loss_and_no_gradient_whatever_the_teacher_says(channels: int) -> None:
    student, teacher = pair(channels)
    loss = pixel_kl(student.requires_grad_(), teacher * torch.nan, torch.zeros(2, HEIGHT, WIDTH))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


def test_pixels_near_a_change_of_label_count_more() -> None:
    student, teacher = pair(3)
    near = torch.zeros(2, HEIGHT, WIDTH)
    near[:, :, 1:5] = 1  # two columns on each side
    found = pixel_kl(student, teacher, weights(), halves(), boundary_gain=4.0, radius=2)
    torch.testing.assert_close(found, pixel_kl(student, teacher, weights() * (1 + 4 * near)))


def test_an_ignored_label_is_no_boundary_and_hides_none() -> None:
    labels = torch.tensor([[[0, 0, -1, -1, 0, 0, 1, -1, 2, 2]]])
    near = near_boundary(labels, 1)[0, 0].tolist()
    assert near == [False, False, False, False, False, True, True, True, False, False]
    assert not near_boundary(torch.full((1, 2, 2), -1), 2).any()
    assert near_boundary(torch.tensor([[[0], [0], [1]]]), 1)[0, :, 0].tolist() == [False, True, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(channels: int) -> None:
    student, teacher = pair(channels, torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: pixel_kl(s, teacher, weights(), halves(), boundary_gain=1.0), (student.requires_grad_(),)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_module_is_the_function(channels: int) -> None:
    student, teacher = pair(channels)
    settings = {"temperature": 2.0, "boundary_gain": 3.0, "radius": 1}
    found = PixelKL(**settings)(student, teacher, weights(), halves())
    torch.testing.assert_close(found, pixel_kl(student, teacher, weights(), halves(), **settings))
    compiled = torch.compile(PixelKL(**settings), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(student, teacher, weights(), halves()), found)


class Sizes(TorchDispatchMode):
    """Numbers of elements of all tensors with memory of their own that ops return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = op(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple) else (found,):
            if isinstance(value, torch.Tensor):
                self.seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nothing_as_large_as_the_logits_is_made_but_the_gradient(layout: Any) -> None:
    student, teacher = (torch.randn(2, 40, 16, 16).to(memory_format=layout) for _ in range(2))
    own = {x.untyped_storage().data_ptr() for x in (student, teacher)}
    labels = torch.randint(0, 3, (2, 16, 16))
    with Sizes() as sizes:
        pixel_kl(student.requires_grad_(), teacher, torch.rand(2, 16, 16), labels, boundary_gain=2.0)
    large = [size for place, size in sizes.seen.items() if place not in own and size > student.numel()]
    assert large == [student.numel() * 4]


def test_what_does_not_fit_is_refused() -> None:
    student, teacher = pair(2)
    with pytest.raises(ArgumentError, match="pixel_labels"):
        pixel_kl(student, teacher, boundary_gain=1.0)
    with pytest.raises(ArgumentError, match="boundary_gain"):
        pixel_kl(student, teacher, boundary_gain=-1.0)
    with pytest.raises(ArgumentError, match="radius"):
        pixel_kl(student, teacher, None, halves(), boundary_gain=1.0, radius=0)
    with pytest.raises(ArgumentError, match="pixel_weights"):
        pixel_kl(student, teacher, weights()[:, None])
    with pytest.raises(ArgumentError, match="student_pixels"):
        pixel_kl(student[:, :0], teacher[:, :0])
    with pytest.raises(ArgumentError, match="temperature"):
        pixel_kl(student, teacher, temperature=0.0)
