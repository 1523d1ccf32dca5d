from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.ops import binary_kl
from tests.ops.reference import BACKENDS, BOUNDS, DEVICES, assert_close, dense_like

INF = float("inf")


def reference(s: Tensor, t: Tensor, temperature: float, beta: float, kind: str) -> tuple[Tensor, ...]:
    """Value of each logit, the sum of its absolute terms, and the same of the gradient, in float64."""
    x, z = s.double() / temperature, t.double() / temperature
    a, a_not, b, b_not = z.sigmoid(), (-z).sigmoid(), x.sigmoid(), (-x).sigmoid()
    log = torch.nn.functional.logsigmoid
    yes, no = (log(z) - log(x), log(-z) - log(-x)) if kind == "kl" else (-log(x), -log(-x))
    terms = [torch.where(p > 0, p * v, 0.0) for p, v in ((a, yes), (a_not, no))]
    value, size = sum(terms), sum(term.abs() for term in terms)
    gap = torch.where(a + b < 1, b - a, a_not - b_not)
    factor = gap.abs() ** beta
    slope, slope_size = gap * factor, gap.abs() * factor
    if beta:  # by the factor's slope; value is a difference of its terms there too
        modulation = torch.where(gap == 0, 0.0, beta * gap.abs() ** (beta - 1) * gap.sign() * b * b_not)
        slope, slope_size = slope + value * modulation, slope_size + size * modulation.abs()
    scale = temperature**2
    return scale * value * factor, scale * size * factor, temperature * slope, temperature * slope_size


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3), label="shape")
    dtype = draw(st.sampled_from(list(BOUNDS)), label="dtype")
    scale = draw(st.sampled_from([0.1, 3.0, 30.0, 3000.0]), label="scale")
    torch.manual_seed(draw(st.integers(0, 999), label="seed"))
    student, teacher = torch.randn(shape) * scale, torch.randn(shape) * scale
    if draw(st.booleans(), label="nearly equal"):
        teacher = student + torch.randn(shape) * 1e-2
    order = draw(st.permutations(range(len(shape))), label="order in memory")
    student, teacher = (dense_like(x.to(dtype), list(order)) for x in (student, teacher))
    return student, teacher, draw(st.sampled_from([0.5, 1.0, 2.0, 20.0]), label="temperature")


def loss_bound(device: str, dtype: torch.dtype) -> float:
    """Of the loss, float32 for all logits; on CPUs bfloat16 takes shorter polynomials: a hundredth of its own bound."""
    brief = device == "cpu" and dtype == torch.bfloat16
    return BOUNDS[torch.bfloat16] / 100 if brief else BOUNDS[torch.float32]


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(problem=problems(), beta=st.sampled_from([0.0, 1.0, 1.5, 2.0]), kind=st.sampled_from(["kl", "bce"]))
def test_against_float64(device: str, problem: tuple[Tensor, Tensor, float], beta: float, kind: str) -> None:
    student, teacher, temperature = problem
    student = student.detach().requires_grad_()
    pair = student.to(device), teacher.to(device)
    values = binary_kl(*pair, temperature, beta, kind, reduction="none", backend="fused").cpu()  # type: ignore[arg-type]
    values.sum().backward()
    expected, scale, gradient, size = reference(student.detach(), teacher, temperature, beta, kind)
    assert not (values < 0).any()
    assert_close("loss", values, expected, scale, loss_bound(device, student.dtype))
    assert student.grad is not None
    assert student.grad.dtype == student.dtype
    assert_close("gradient", student.grad, gradient, size, BOUNDS[student.dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_by_hand(backend: str) -> None:
    student, teacher = torch.tensor([0.0, math.log(3)]), torch.tensor([math.log(3), math.log(3)])  # b = 1/2, 3/4; a = 3/4
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    got = binary_kl(student, teacher, reduction="none", backend=backend)
    torch.testing.assert_close(got, torch.tensor([kl, 0.0]))
    got = binary_kl(student, teacher, beta=2.0, kind="bce", reduction="none", backend=backend)
    torch.testing.assert_close(got, torch.tensor([math.log(2) / 16, 0.0]))
    got = binary_kl(student, teacher, kind="bce", reduction="none", backend=backend)
    torch.testing.assert_close(got, torch.tensor([math.log(2), entropy]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["kl", "bce"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5])
def test_infinite_logits(backend: str, device: str, kind: str, beta: float) -> None:
    student = torch.tensor([INF, -INF, INF, -INF, 0.0, float("nan")], requires_grad=True)
    teacher = torch.tensor([INF, -INF, -INF, INF, INF, 0.0])
    pair = student.to(device), teacher.to(device)
    values = binary_kl(*pair, beta=beta, kind=kind, reduction="none", backend=backend).cpu()  # type: ignore[arg-type]
    assert values[:2].tolist() == [0.0, 0.0]
    assert values[2:4].tolist() == [INF, INF]
    torch.testing.assert_close(values[4].item(), math.log(2) * 0.5**beta)
    assert values[5].isnan()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight_shape", [(2, 5, 7), (1, 1, 7), (2, 1, 7), (5, 1), ()])
def test_weights_and_reductions(backend: str, weight_shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(2, 5, 7, requires_grad=True), torch.randn(2, 5, 7)
    weight = torch.rand(weight_shape) * (torch.rand(weight_shape) < 0.7)
    values, _, gradient, _ = reference(student.detach(), teacher, 2.0, 1.0, "bce")
    weighted = (values * weight).float()
    expected = {"none": weighted, "sum": weighted.sum(), "mean": weighted.mean(), "batchmean": weighted.sum() / 2}
    for reduction, value in expected.items():
        got = binary_kl(student, teacher, 2.0, 1.0, "bce", weight, reduction, backend)  # type: ignore[arg-type]
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-6)
    (got_gradient,) = torch.autograd.grad(got, student)
    torch.testing.assert_close(got_gradient, (gradient * weight / 2).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weight_masks_whatever_it_covers(backend: str) -> None:
    student = torch.tensor([float("nan"), INF, 1.0], requires_grad=True)
    loss = binary_kl(student, torch.tensor([0.0, -INF, 0.0]), weight=torch.tensor([0.0, 0.0, 1.0]), backend=backend)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient[:2].tolist() == [0.0, 0.0]
    assert gradient[2] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_and_scalar_input(backend: str) -> None:
    assert binary_kl(torch.zeros(0, 3), torch.zeros(0, 3), backend=backend).item() == 0
    assert binary_kl(torch.tensor(1.0), torch.tensor(1.0), backend=backend).item() == pytest.approx(0, abs=1e-6)


def test_bad_arguments_are_named() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="`beta`"):
        binary_kl(x, x, beta=-1.0)
    with pytest.raises(ArgumentError, match="`kind`"):
        binary_kl(x, x, kind="mse")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`weight`"):
        binary_kl(x, x, weight=torch.ones(5))
