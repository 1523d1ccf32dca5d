"""The memory of large gradients, which waits for the next step."""

from __future__ import annotations

import torch
from torch import Tensor

from detkd.ops import kl_div

ROWS = 5000  # × 80 classes of float32: 1.6 MB


def gradient_of(student: Tensor) -> Tensor:
    leaf = student.detach().requires_grad_()
    kl_div(leaf, torch.zeros_like(leaf), 1, backend="fused").backward()
    assert leaf.grad is not None
    return leaf.grad


def test_the_next_step_finds_the_memory_of_a_freed_gradient() -> None:
    student = torch.randn(ROWS, 80)
    first = gradient_of(student)
    where, expected = first.data_ptr(), first.clone()
    second = gradient_of(student)  # while the first is alive
    assert second.data_ptr() != where
    del first
    third = gradient_of(student)
    assert third.data_ptr() == where
    assert torch.equal(second, expected)
    assert torch.equal(third, expected)


def test_it_is_an_ordinary_tensor() -> None:
    student = torch.randn(80, ROWS).t()
    gradient = gradient_of(student)
    assert gradient.stride() == student.stride()
    gradient.resize_(ROWS, 160)  # grows
    assert gradient.numel() == ROWS * 160
    assert gradient_of(torch.randn(ROWS, 320)[:, ::4]).is_contiguous()
    with torch.inference_mode():
        assert torch.ops.detkd.kl_div(student, student, 1, 1.0, None, None, "mean", True)[1].is_inference()
