from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detkd.errors import ArgumentError, BackendError
from detkd.ops import kl_div
from detkd.ops._extension import load_error

BACKENDS = ["reference"] if load_error() else ["reference", "fused"]
BOUNDS = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def reference(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Rows and gradient of their sum in float64, from probabilities rather than from detkd's expressions."""
    s, t = student.double() / temperature, teacher.double() / temperature
    p_s, p_t = s.softmax(dim), t.softmax(dim)
    terms = torch.where(p_t > 0, p_t * (t.log_softmax(dim) - s.log_softmax(dim)), 0.0)
    return temperature**2 * terms.sum(dim), temperature * (p_s - p_t)


def test_the_extension_is_built_here() -> None:
    assert load_error() is None


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_against_float64(backend: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 19), min_size=1, max_size=4), label="shape")
    dim = data.draw(st.integers(-len(shape), len(shape) - 1), label="dim")
    temperature = data.draw(st.sampled_from([0.5, 1.0, 4.0, 20.0]), label="temperature")
    dtype = data.draw(st.sampled_from(list(BOUNDS)), label="dtype")
    scale = data.draw(st.sampled_from([0.1, 3.0, 100.0]), label="scale")
    torch.manual_seed(data.draw(st.integers(0, 99), label="seed"))
    student = (torch.randn(shape) * scale).to(dtype).requires_grad_()
    teacher = (torch.randn(shape) * scale).to(dtype)
    rows = kl_div(student, teacher, dim, temperature, reduction="none", backend=backend)
    rows.sum().backward()
    expected_rows, expected_grad = reference(student.detach(), teacher, dim, temperature)
    assert rows.dtype == torch.float32
    assert student.grad is not None
    assert student.grad.dtype == dtype
    # Beside the relative bound: float32 rounding of log-probabilities, which are of the size of log C and of logits / T.
    eps = torch.finfo(torch.float32).eps
    magnitude = 1 + math.log(shape[dim]) + 6 * scale / temperature
    rounding = 4 * eps * temperature**2 * magnitude * rows.numel()
    assert (rows.double() - expected_rows).abs().sum() <= 5e-6 * expected_rows.abs().sum() + rounding
    # Beside the relative bound: float32 rounding of the two probabilities whose difference the gradient is, and the
    # smallest step of the gradient's own type.
    step = temperature * eps * (1 + scale / temperature) + torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    slack = 2 * step * student.numel() ** 0.5
    assert (student.grad.double() - expected_grad).norm() <= BOUNDS[dtype] * expected_grad.norm() + slack


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_input_and_reductions(backend: str) -> None:
    student = torch.randn(2, 33, 5).transpose(1, 2)  # [B, C, A], C strided
    teacher = torch.randn(2, 33, 5).transpose(1, 2)
    weight = torch.rand(2, 33)
    rows, _ = reference(student, teacher, 1, 2.0)
    weighted = (rows * weight).float()
    expected = {"none": weighted, "sum": weighted.sum(), "mean": weighted.sum() / 66, "batchmean": weighted.sum() / 2}
    for reduction, value in expected.items():
        got = kl_div(student, teacher, 1, 2.0, weight, reduction, backend)
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_void_and_infinite_entries(backend: str) -> None:
    inf = float("inf")
    teacher = torch.tensor([[0.0, -inf], [-inf, -inf], [0.0, 0.0], [0.0, 1.0]])
    student = torch.tensor([[0.0, -inf], [0.0, 0.0], [-inf, -inf], [0.0, float("nan")]], requires_grad=True)
    rows = kl_div(student, teacher, 1, reduction="none", backend=backend)
    assert rows[:3].tolist() == [0.0, 0.0, 0.0]
    assert torch.isnan(rows[3])
    rows[:3].sum().backward()
    assert student.grad is not None
    assert not student.grad[:3].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 4)])
def test_empty_input(backend: str, shape: tuple[int, ...]) -> None:
    assert kl_div(torch.zeros(shape), torch.zeros(shape), 1, backend=backend).item() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weight_masks_even_infinite_losses(backend: str) -> None:
    student = torch.tensor([[0.0, -float("inf")], [0.0, 1.0]])
    teacher = torch.zeros(2, 2)
    got = kl_div(student, teacher, 1, weight=torch.tensor([0.0, 1.0]), reduction="sum", backend=backend)
    torch.testing.assert_close(got, kl_div(student[1:], teacher[1:], 1, reduction="sum", backend="reference"))


def test_opcheck_compile_and_no_second_derivative() -> None:
    student, teacher = torch.randn(3, 5, 7, requires_grad=True), torch.randn(3, 5, 7)
    torch.library.opcheck(torch.ops.detkd.kl_div_rows.default, (student, teacher, 1, 2.0, True))
    compiled = torch.compile(kl_div, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(student, teacher, 1, 2.0), kl_div(student, teacher, 1, 2.0))
    loss = kl_div(student, teacher, 1, backend="fused")
    with pytest.raises(BackendError, match="second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_bad_arguments_are_named() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="`temperature`"):
        kl_div(x, x, temperature=0.0)
    with pytest.raises(ArgumentError, match="`reduction`"):
        kl_div(x, x, reduction="avg")
    with pytest.raises(ArgumentError, match="`dim`"):
        kl_div(x, x, dim=2)
    with pytest.raises(ArgumentError, match="`weight`"):
        kl_div(x, x, weight=torch.ones(5))
    with pytest.raises(ArgumentError, match="`backend`"):
        kl_div(x, x, backend="gpu")
    with pytest.raises(BackendError, match="float64"):
        kl_div(x.double(), x.double(), backend="fused")
