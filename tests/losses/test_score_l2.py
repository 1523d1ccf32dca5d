from __future__ import annotations

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import ScoreL2, score_l2


def test_value_by_hand() -> None:
    # Two positions, two channels; only the first scores: ((1² + 3²) × 1) / (1 × 2)
    student = torch.tensor([[1.0, 9.0], [3.0, 9.0]]).view(1, 2, 1, 2)
    assert score_l2(student, torch.zeros(1, 2, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)).item() == 5.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_against_float64_with_loops(dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 3, 4, 5).to(dtype), torch.randn(2, 3, 4, 5).to(dtype)
    scores = torch.rand(2, 1, 4, 5)
    total = 0.0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                gap = student[n, :, y, x].double() - teacher[n, :, y, x].double()
                total += scores[n, 0, y, x].item() * gap.square().mean().item()
    assert score_l2(student, teacher, scores).item() == pytest.approx(total / scores.sum().item(), rel=1e-5)


def test_module_equals_function() -> None:
    inputs = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(ScoreL2()(*inputs), score_l2(*inputs))


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: score_l2(s, teacher.detach(), scores), (student,))
    score_l2(student, teacher, scores).backward()
    assert teacher.grad is None


def test_no_score_gives_zero() -> None:
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = score_l2(student, torch.randn(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(torch.compile(score_l2, fullgraph=True, backend="aot_eager")(*inputs), score_l2(*inputs))


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match="teacher_feature"):
        score_l2(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ArgumentError, match="teacher_scores"):
        score_l2(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3))
