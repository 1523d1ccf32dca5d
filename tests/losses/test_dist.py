from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import DIST, dist


def correlation(a: list[float], b: list[float]) -> float:
    a, b = ([x - sum(values) / len(values) for x in values] for values in (a, b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in logits]
    return [power / sum(powers) for power in powers]


def reference(student: Tensor, teacher: Tensor, beta: float, gamma: float, temperature: float) -> float:
    """Of rows [R, C]."""
    s, t = ([softmax(row, temperature) for row in x.tolist()] for x in (student, teacher))
    by_row = [1 - correlation(a, b) for a, b in zip(s, t, strict=True)]
    by_class = [1 - correlation(list(a), list(b)) for a, b in zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)]
    between, within = sum(by_row) / len(by_row), sum(by_class) / len(by_class)
    return temperature**2 * (beta * between + gamma * within)


def test_value_by_hand() -> None:
    # Rows (.6, .3, .1) and (.3, .6, .1) of the student, swapped in the teacher. About the mean 1/3 a row has the products
    # 2 (.8/3)(-.1/3) + (.7/3)² = .33/9 and the square (.64 + .01 + .49)/9 = 1.14/9. The classes: -1, -1 and, as it is
    # constant, 0.
    rows = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]]).log()
    between, within = 1 - 0.33 / 1.14, (2 + 2 + 1) / 3
    found = dist(rows, rows.flip(0), beta=2.0, gamma=3.0)
    assert found.item() == pytest.approx(2 * between + 3 * within, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (33, 81)])
def test_against_plain_loops(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    student, teacher = (torch.randn(shape).mul(2).to(dtype) for _ in range(2))
    found = dist(student, teacher, beta=2.0, gamma=0.5, temperature=3.0)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(student, teacher, 2.0, 0.5, 3.0), rel=5e-5)


def test_every_position_of_a_map_is_a_row() -> None:
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    torch.testing.assert_close(dist(student, teacher), dist(*rows))


def test_a_student_that_agrees_up_to_scale_costs_nothing() -> None:
    # Two classes: any student that orders every row as the teacher does correlates perfectly within rows.
    teacher = torch.tensor([[2.0, -1.0], [-0.5, 0.5], [3.0, 0.0]])
    assert dist(teacher / 3, teacher, gamma=0.0).item() == pytest.approx(0, abs=1e-6)
    assert dist(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert dist(-teacher, teacher, gamma=0.0).item() == pytest.approx(2, rel=1e-6)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: dist(s, teacher.detach(), temperature=2.0), (student,))
    dist(student, teacher).backward()
    assert teacher.grad is None


def test_a_student_whose_logits_are_all_alike_gets_a_bounded_gradient_towards_the_teacher() -> None:
    student, teacher = torch.zeros(4, 3, requires_grad=True), torch.randn(4, 3)
    loss = dist(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(2)
    assert student.grad is not None
    assert 0 < student.grad.abs().max() < 1e4
    with torch.no_grad():
        assert dist(student - 1e-4 * student.grad.sign(), teacher) < loss


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 5, 2), (2, 4, 0)])
def test_nothing_costs_nothing(shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    loss = dist(student, torch.zeros(shape))
    loss.backward()
    assert loss.item() == 0


def test_one_class_has_no_relations_and_no_gradient() -> None:
    student = torch.randn(6, 1, requires_grad=True)
    loss = dist(student, torch.randn(6, 1))
    loss.backward()
    assert loss.item() == 2
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_certain_models_stay_finite(size: float) -> None:
    student = torch.tensor([[size, 0.0, -size], [0.0, size, -size]], requires_grad=True)
    loss = dist(student, student.detach().flip(0))
    loss.backward()
    assert loss.item() == pytest.approx(1.5 + 5 / 3, rel=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(2, 3, 4, 5).transpose(1, 3), torch.randn(2, 10, 4, 3)[:, ::2]
    settings = {"beta": 2.0, "gamma": 0.5, "temperature": 4.0}
    found = DIST(**settings)(student, teacher)
    torch.testing.assert_close(found, dist(student.contiguous(), teacher.contiguous(), **settings))
    torch.testing.assert_close(DIST()(student, teacher), dist(student, teacher))


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(torch.compile(dist, fullgraph=True, backend="aot_eager")(*inputs), dist(*inputs))


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match="teacher"):
        dist(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ArgumentError, match="student_logits"):
        dist(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ArgumentError, match="temperature"):
        dist(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)
