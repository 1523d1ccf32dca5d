from __future__ import annotations

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import PKD, pkd


def pearson_distance(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Mean over channels of 1 - r, in float64, with torch's own correlation."""
    rows = [x.double().transpose(0, 1).flatten(1) for x in (student, teacher)]
    return sum(1 - torch.corrcoef(torch.stack((s, t)))[0, 1].item() for s, t in zip(*rows, strict=True)) / len(rows[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (2, 7, 9, 4), (4, 16, 8, 8)])
def test_is_one_minus_pearson(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    student, teacher = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    assert pkd(student, teacher).item() == pytest.approx(pearson_distance(student, teacher), abs=1e-4)


def test_scale_and_offset_of_a_channel_do_not_matter() -> None:
    student = torch.randn(2, 3, 5, 5)
    assert pkd(student, student * torch.tensor([2.0, 0.5, 7.0]).view(3, 1, 1) + 3).item() == pytest.approx(0, abs=1e-5)
    assert pkd(student, -student).item() == pytest.approx(2, abs=1e-4)


def test_module_equals_function_on_strided_input() -> None:
    student = torch.randn(2, 5, 6, 3).permute(0, 3, 1, 2)
    teacher = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(PKD()(student, teacher), pkd(student.contiguous(), teacher))


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: pkd(s, teacher.detach()), (student,))
    pkd(student, teacher).backward()
    assert teacher.grad is None


def test_constant_channel_stays_finite() -> None:
    student = torch.ones(2, 3, 4, 4, requires_grad=True)
    loss = pkd(student, torch.randn(2, 3, 4, 4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_unlike_channels_are_named() -> None:
    with pytest.raises(ArgumentError, match="teacher"):
        pkd(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
