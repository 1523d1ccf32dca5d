from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import DKD, dkd, soft_kl


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def reference(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> float:
    total, count = 0.0, 0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        count += 1
        cool_s, cool_t = ([x / temperature for x in row] for row in (s, t))
        true_s, true_t = softmax(cool_s)[label], softmax(cool_t)[label]
        del cool_s[label], cool_t[label]
        total += alpha * divergence([true_t, 1 - true_t], [true_s, 1 - true_s])
        total += beta * divergence(softmax(cool_t), softmax(cool_s))
    return temperature**2 * total / max(count, 1)


def test_value_by_hand() -> None:
    # Teacher (1/2, 3/8, 1/8), student uniform, the first class is true: (1/2, 1/2) against (1/3, 2/3) for it, (3/4, 1/4)
    # against (1/2, 1/2) for the others.
    teacher = torch.tensor([[0.5, 0.375, 0.125]]).log()
    true = 0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3))
    others = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = dkd(torch.zeros(1, 3), teacher, torch.tensor([0]), alpha=2.0, beta=3.0, temperature=1.0)
    assert found.item() == pytest.approx(2 * true + 3 * others, rel=1e-6)


def test_with_the_probability_of_the_others_as_beta_it_is_the_divergence_of_the_whole_softmax() -> None:
    student, teacher = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    beta = 1 - (teacher / 2.0).softmax(1)[0, 4].item()
    found = dkd(student, teacher, torch.tensor([4]), beta=beta, temperature=2.0)
    torch.testing.assert_close(found, soft_kl(student, teacher, temperature=2.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("count", "classes"), [(1, 2), (7, 5), (33, 81)])
def test_against_plain_loops(dtype: torch.dtype, count: int, classes: int) -> None:
    student, teacher = (torch.randn(count, classes).mul(3).to(dtype) for _ in range(2))
    labels = torch.randint(-1, classes, (count,))
    labels[0] = classes - 1
    found = dkd(student, teacher, labels, alpha=0.5, beta=2.0, temperature=1.5)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(student, teacher, labels, 0.5, 2.0, 1.5), rel=2e-5)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, -1, 4, 2])
    assert torch.autograd.gradcheck(lambda s: dkd(s, teacher.detach(), labels), (student,))
    dkd(student, teacher, labels).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_without_a_label_count_nothing_whatever_they_hold(dtype: torch.dtype) -> None:
    student, teacher = (torch.randn(3, 4).to(dtype) for _ in range(2))
    expected = dkd(student[:2], teacher[:2], torch.tensor([1, 3]))
    student[2], teacher[2] = torch.nan, torch.inf
    student.requires_grad_()
    found = dkd(student, teacher, torch.tensor([1, 3, -1]))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert student.grad is not None
    assert student.grad[:2].abs().sum() > 0
    assert not student.grad[2].any()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_certain_models_that_disagree_cost_what_their_logits_differ(size: float) -> None:
    # Sure of the true class against sure of another one, and of unlike others.
    student = torch.tensor([[-size, 0.0, 0.0], [0.0, -size, 0.0]], requires_grad=True)
    teacher = torch.tensor([[size, 0.0, 0.0], [0.0, 0.0, -size]])
    loss = dkd(student, teacher, torch.tensor([0, 0]), alpha=1.0, beta=1.0, temperature=1.0)
    loss.backward()
    others = size  # of the second row; its true class: ln 1/2 in both, and the first row's others agree
    assert loss.item() == pytest.approx((size + math.log(2) + others) / 2, rel=1e-6)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 0].item() == pytest.approx(-0.5)


@pytest.mark.parametrize(("shape", "label"), [((0, 5), 0), ((3, 1), 0), ((3, 4), -1), ((0, 1), 0)])
def test_without_a_row_or_another_class_it_is_zero_and_so_is_its_gradient(shape: tuple[int, int], label: int) -> None:
    student = torch.randn(shape, requires_grad=True)
    loss = dkd(student, torch.randn(shape), torch.full(shape[:1], label))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(5, 9).t(), torch.randn(5, 18).t()[::2]
    labels = torch.arange(9) % 5
    settings = {"alpha": 2.0, "beta": 0.25, "temperature": 1.0}
    found = DKD(**settings)(student, teacher, labels)
    torch.testing.assert_close(found, dkd(student.contiguous(), teacher.contiguous(), labels, **settings))
    torch.testing.assert_close(DKD()(student, teacher, labels), dkd(student, teacher, labels))


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) % 5 - 1
    torch.testing.assert_close(torch.compile(dkd, fullgraph=True, backend="aot_eager")(*inputs), dkd(*inputs))


def test_misfits_are_named() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="teacher"):
        dkd(logits, torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ArgumentError, match=r"student_logits.*\[R, K\]"):
        dkd(logits[0], logits[0], torch.tensor([0, 1]))
    for labels in (torch.tensor([0]), torch.zeros(2), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ArgumentError, match="labels"):
            dkd(logits, logits, labels)
    with pytest.raises(ArgumentError, match="temperature"):
        dkd(logits, logits, torch.tensor([0, 1]), temperature=0.0)
