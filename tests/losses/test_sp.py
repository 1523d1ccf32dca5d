from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import SP, sp


def similarities(feature: Tensor) -> list[list[float]]:
    samples = feature.double().flatten(1).tolist()
    rows = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in samples] for a in samples]
    return [[value / (math.hypot(*row) or 1) for value in row] for row in rows]


def reference(student: Tensor, teacher: Tensor) -> float:
    s, t = similarities(student), similarities(teacher)
    count = len(s)
    return sum((s[i][j] - t[i][j]) ** 2 for i in range(count) for j in range(count)) / count**2


def test_value_by_hand() -> None:
    # Gram matrices ((1, 1), (1, 2)) and ((1, 0), (0, 4)); rows at length 1: (1, 1)/√2, (1, 2)/√5 and (1, 0), (0, 1).
    student = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    expected = ((1 / math.sqrt(2) - 1) ** 2 + 1 / 2 + 1 / 5 + (2 / math.sqrt(5) - 1) ** 2) / 4
    assert sp(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "shapes", [((1, 3), (1, 5)), ((2, 3, 5, 7), (2, 8, 3, 2)), ((7, 1, 1, 3), (7, 4)), ((33, 5), (33, 2, 9))]
)
def test_against_plain_loops(dtype: torch.dtype, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    student, teacher = (torch.randn(shape).to(dtype) for shape in shapes)
    found = sp(student, teacher)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(student, teacher), rel=1e-4, abs=1e-7)


def test_scale_and_rotation_of_the_activations_do_not_matter() -> None:
    student = torch.randn(5, 8)
    turned = 7 * student @ torch.linalg.qr(torch.randn(8, 8)).Q
    assert sp(student, turned).item() == pytest.approx(0, abs=1e-10)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: sp(s, teacher.detach()), (student,))
    sp(student, teacher).backward()
    assert teacher.grad is None


def test_a_dead_sample_gets_a_bounded_gradient_and_a_dead_batch_none() -> None:
    student, teacher = torch.rand(4, 6), torch.rand(4, 9)
    student[1] = 0
    student.requires_grad_()
    loss = sp(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(reference(student.detach(), teacher), rel=1e-4)
    assert student.grad is not None
    assert 0 < student.grad[1].abs().max() < 1e3
    dead = torch.zeros(4, 6, requires_grad=True)
    loss = sp(dead, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4)  # rows of 0 against rows of length 1
    assert dead.grad is not None
    assert not dead.grad.any()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_any_magnitude_gives_the_same_loss(size: float) -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 9)
    found = (student * size).requires_grad_()
    loss = sp(found, teacher / size)
    loss.backward()
    torch.testing.assert_close(loss, sp(student, teacher))
    assert found.grad is not None
    assert found.grad.isfinite().all()
    assert found.grad.any()


@pytest.mark.parametrize("shape", [(0, 5), (0, 3, 2, 2), (3, 0)])
def test_nothing_costs_nothing(shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    loss = sp(student, torch.zeros(shape[0], 4))
    loss.backward()
    assert loss.item() == 0


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(5, 3, 4, 6).transpose(0, 3), torch.randn(6, 10, 4)[:, ::2]
    torch.testing.assert_close(SP()(student, teacher), sp(student.contiguous(), teacher.contiguous()))


def test_autocast_keeps_the_inner_products_in_float32() -> None:
    student, teacher = torch.randn(6, 300), torch.randn(6, 200)
    expected = sp(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sp(student, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(3, 4, 2, 2), torch.randn(3, 5)
    torch.testing.assert_close(torch.compile(sp, fullgraph=True, backend="aot_eager")(*inputs), sp(*inputs))


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match="`teacher_feature` to hold the student's 2 samples"):
        sp(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ArgumentError, match="student_feature"):
        sp(torch.zeros(3), torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match="floating point"):
        sp(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long))
