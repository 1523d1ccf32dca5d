from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import SoftKL, soft_kl


def test_value_by_hand() -> None:
    # p_t = (3/4, 1/4), p_s = (1/2, 1/2) at T 1: KL = ln 2 - H(1/4)
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    student = torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    # Terms of .3 and -.2, each rounded to float32.
    assert soft_kl(student, teacher, temperature=1.0).item() == pytest.approx(expected, abs=5e-7)


def test_temperature_scales_logits_and_keeps_gradients_in_size() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    hot = soft_kl(student, teacher, temperature=3.0)
    assert hot.item() == pytest.approx(9.0 * soft_kl(student / 3, teacher / 3, temperature=1.0).item(), rel=1e-5)


def test_dense_maps_equal_their_rows() -> None:
    student, teacher = torch.randn(2, 7, 3, 4), torch.randn(2, 7, 3, 4)
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 7) for x in (student, teacher)]
    torch.testing.assert_close(soft_kl(student, teacher), soft_kl(*rows))


def test_module_equals_function_and_weights_positions() -> None:
    student, teacher, weight = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([1.0, 0.0, 2.0, 0.0])
    module = SoftKL(temperature=2.0)
    torch.testing.assert_close(module(student, teacher), soft_kl(student, teacher, temperature=2.0))
    each = soft_kl(student, teacher, temperature=2.0, reduction="none")
    torch.testing.assert_close(module(student, teacher, weight), (each * weight).sum() / 4)


def test_gradcheck() -> None:
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_kl(s, torch.ones_like(s) * torch.arange(4.0)), (student,))


def test_teacher_gets_no_gradient() -> None:
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    soft_kl(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_unlike_shapes_are_named() -> None:
    with pytest.raises(ArgumentError, match="teacher"):
        soft_kl(torch.zeros(2, 3), torch.zeros(2, 4))
