from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detkd.errors import ArgumentError, BackendError
from detkd.ops import kl_div
from detkd.ops._extension import cpu_capabilities, load_error
from tests.ops.reference import BACKENDS, BOUNDS, DEVICES, assert_close, dense_like

INF = float("inf")


def reference(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Divergence of each position, the sum of its absolute terms, and the gradient, in float64."""
    s, t = student.double() / temperature, teacher.double() / temperature
    p_s, p_t = s.softmax(dim), t.softmax(dim)
    terms = torch.where(p_t > 0, p_t * (t.log_softmax(dim) - s.log_softmax(dim)), 0.0)
    scale = temperature**2 * terms.abs().sum(dim)
    return (temperature**2 * terms.sum(dim)).clamp(min=0), scale, temperature * (p_s - p_t)


def test_the_extension_is_built_here() -> None:
    assert load_error() is None


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, float]:
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4), label="shape")
    dim = draw(st.integers(0, len(shape) - 1), label="dim")
    dtype = draw(st.sampled_from(list(BOUNDS)), label="dtype")
    # Logits to 1e4; float16 has its top at 65504.
    scale = draw(st.sampled_from([0.01, 1.0, 10.0, 3000.0]), label="scale")
    torch.manual_seed(draw(st.integers(0, 999), label="seed"))
    student, teacher = (torch.randn(shape) * scale, torch.randn(shape) * scale)
    if draw(st.booleans(), label="nearly equal"):
        teacher = student + torch.randn(shape) * scale * 1e-3
    if draw(st.booleans(), label="some teacher logits -inf"):
        teacher = teacher.masked_fill(torch.rand(shape) < 0.3, -INF)
    order = draw(st.permutations(range(len(shape))), label="order in memory")
    student, teacher = (dense_like(x.to(dtype), list(order)) for x in (student, teacher))
    if draw(st.booleans(), label="a slice of more"):
        student = torch.cat([student, student], dim)[(slice(None),) * dim + (slice(0, shape[dim]),)]
    return student, teacher, dim, draw(st.sampled_from([0.5, 1.0, 4.0, 20.0]), label="temperature")


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_against_float64(device: str, problem: tuple[Tensor, Tensor, int, float]) -> None:
    student, teacher, dim, temperature = problem
    student = student.detach().requires_grad_()
    rows = kl_div(student.to(device), teacher.to(device), dim, temperature, reduction="none", backend="fused").cpu()
    rows.sum().backward()
    expected, scale, gradient = reference(student.detach(), teacher, dim, temperature)
    void = (teacher == -INF).all(dim)
    expected, scale = expected.masked_fill(void, 0.0), scale.masked_fill(void, 0.0)
    gradient = gradient.masked_fill(void.unsqueeze(dim), 0.0)
    assert rows.dtype == torch.float32
    assert not (rows < 0).any()
    assert_close("loss", rows, expected, scale, BOUNDS[torch.float32])
    assert student.grad is not None
    assert student.grad.dtype == student.dtype
    assert_close("gradient", student.grad, gradient, gradient, BOUNDS[student.dtype])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(33, 80), (5, 1000), (3, 2, 70), (2, 4, 16, 33), (1, 50000), (3, 3000, 19)])
def test_backends_agree(shape: tuple[int, ...], device: str) -> None:
    student, teacher = torch.randn(shape, device=device, requires_grad=True), torch.randn(shape, device=device)
    got, expected = (kl_div(student, teacher, -1 if len(shape) == 2 else 1, 3.0, backend=b) for b in ("fused", "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    (got_grad,), (expected_grad,) = torch.autograd.grad(got, student), torch.autograd.grad(expected, student)
    torch.testing.assert_close(got_grad, expected_grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("classes", [19, 80, 1000, 10_000, 100_000])
@pytest.mark.parametrize("peaked", ["student", "teacher", "both"])
@pytest.mark.parametrize("height", [10.0, 25.0])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_against_float64_where_one_is_peaked(layout: str, height: float, peaked: str, classes: int, device: str) -> None:
    """The sum of exponentials of one is up to thousands of times that of the other, most are tiny beside the largest."""
    torch.manual_seed(0)

    def logits(has_peak: bool) -> Tensor:
        x = torch.rand(4, classes)
        if has_peak:
            x[torch.arange(4), torch.randint(classes, (4,))] = height
        return x if layout == "rows" else x.T.contiguous()

    dim = 1 if layout == "rows" else 0
    student, teacher = logits(peaked != "teacher").requires_grad_(), logits(peaked != "student")
    positions = kl_div(student.to(device), teacher.to(device), dim, reduction="none", backend="fused").cpu()
    positions.sum().backward()
    expected, scale, gradient = reference(student.detach(), teacher, dim, 1.0)
    assert student.grad is not None
    for i in range(4):
        assert_close("loss", positions[i], expected[i], scale[i], BOUNDS[torch.float32])
        slope, got = gradient.select(1 - dim, i), student.grad.select(1 - dim, i)
        assert_close("gradient", got, slope, slope, BOUNDS[torch.float32])


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("dim", [0, 1])
def test_against_float64_of_peaked_students_among_others(dim: int, dtype: torch.dtype) -> None:
    """Positions that are worked on together: a peak, a neighbour of the teacher, one that is masked, a void."""
    student, teacher = torch.rand(40, 300), torch.rand(40, 300)
    student[::4, 7] = 20.0
    student[1::4] = teacher[1::4] + 1e-2 * torch.randn(10, 300)
    student[2::4, 5], weight = 30.0, torch.ones(40)
    weight[2::4] = 0.0
    student[3::8] = -INF
    if dim == 0:
        student, teacher = student.T.contiguous(), teacher.T.contiguous()
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    positions = kl_div(student, teacher, dim, 1.0, weight, "none", "fused")
    positions.sum().backward()
    expected, scale, gradient = reference(student.detach(), teacher, dim, 1.0)
    assert student.grad is not None
    for i in range(40):
        slope, got = gradient.select(1 - dim, i), student.grad.select(1 - dim, i)
        if i % 4 == 2 or i % 8 == 3:
            assert positions[i] == 0
            assert not got.any()
        else:
            assert_close("loss", positions[i], expected[i], scale[i], BOUNDS[torch.float32])
            assert_close("gradient", got, slope, slope, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("layout", ["rows", "rows apart", "columns"])
def test_against_float64_for_any_number_of_classes(layout: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for classes in (*range(1, 52), 63, 64, 65, 80, 100, 250, 1000):
        shape = (35, classes + 3) if layout == "rows apart" else (35, classes)
        student, teacher = (torch.randn(shape).to(dtype)[:, :classes] for _ in range(2))
        dim = 1
        if layout == "columns":
            student, teacher, dim = student.T.contiguous(), teacher.T.contiguous(), 0
        student.requires_grad_()
        rows = kl_div(student, teacher, dim, 2.0, reduction="none", backend="fused")
        (got,) = torch.autograd.grad(rows.sum(), student)
        expected, scale, gradient = reference(student.detach(), teacher, dim, 2.0)
        assert_close(f"loss of {classes}", rows, expected, scale, BOUNDS[torch.float32])
        assert_close(f"gradient of {classes}", got, gradient, gradient, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("classes", [2, 21, 80, 1000, 50_000])
def test_classes_that_both_exclude_count_nothing(classes: int, dim: int, dtype: torch.dtype) -> None:
    """Both have -inf there, in some positions only; a student's alone is an infinite loss."""
    torch.manual_seed(0)
    student, teacher = torch.randn(20, classes).to(dtype), torch.randn(20, classes).to(dtype)
    student.requires_grad_()
    without = [kl_div(student[i], teacher[i], 0, 0.5, backend="fused") for i in range(20)]
    (expected,) = torch.autograd.grad(without[0], student)
    student = student.detach()
    excluded = torch.full((20, 5), -INF, dtype=dtype)
    excluded[1::2] = teacher[1::2, :1]
    both = [torch.cat((x[:, :1], excluded, x[:, 1:]), 1) for x in (student, teacher)]
    both[0][3, 2] = -INF
    student, teacher = (x if dim else x.T.contiguous() for x in both)
    student.requires_grad_()
    positions = kl_div(student, teacher, dim, 0.5, reduction="none", backend="fused")
    torch.testing.assert_close(positions[::2], torch.stack(without[::2]), rtol=1e-4, atol=1e-6)
    assert positions[3] == INF
    assert positions[5].isfinite()
    (gradient,) = torch.autograd.grad(positions[::2].sum(), student)
    first = gradient.select(1 - dim, 0)
    assert not first[1:6].any()
    assert_close("gradient", first[6:], expected[0, 1:].double(), expected[0, 1:].double(), BOUNDS[dtype])


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("classes", [2, 21, 80, 1000])
@pytest.mark.parametrize("apart", [-1000.0, -40.0, 40.0, 1000.0])
def test_against_float64_where_the_maxima_are_far_apart(apart: float, classes: int, dim: int) -> None:
    """Multiples of 1/8 are exact in float32 at any of these distances: what is lost is lost by the kernel."""
    torch.manual_seed(0)
    student, teacher = ((8 * 10 * torch.randn(40, classes)).round() / 8 for _ in range(2))
    student = student + apart
    if dim == 0:
        student, teacher = student.T.contiguous(), teacher.T.contiguous()
    student.requires_grad_()
    positions = kl_div(student, teacher, dim, 0.5, reduction="none", backend="fused")
    (got,) = torch.autograd.grad(positions.sum(), student)
    expected, scale, gradient = reference(student.detach(), teacher, dim, 0.5)
    assert_close("loss", positions, expected, scale, BOUNDS[torch.float32])
    for i in range(40):
        slope = gradient.select(1 - dim, i)
        assert_close("gradient", got.select(1 - dim, i), slope, slope, BOUNDS[torch.float32])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_strided_input_weights_and_reductions(backend: str, dtype: torch.dtype) -> None:
    student = torch.randn(2, 33, 5).to(dtype).transpose(1, 2)  # [B, C, A], C with neighbours
    teacher = torch.randn(2, 5, 33).to(dtype)
    weight = torch.rand(2, 33) * (torch.rand(2, 33) < 0.7)
    rows, _, gradient = reference(student, teacher, 1, 2.0)
    weighted = (rows * weight).float()
    expected = {"none": weighted, "sum": weighted.sum(), "mean": weighted.sum() / 66, "batchmean": weighted.sum() / 2}
    for reduction, value in expected.items():
        leaf = student.detach().requires_grad_()
        got = kl_div(leaf, teacher, 1, 2.0, weight, reduction, backend)
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-6)
        (1000 * got).sum().backward()
        scaled = 1000 * gradient * weight.unsqueeze(1) / {"mean": 66, "batchmean": 2}.get(reduction, 1)
        assert leaf.grad is not None
        assert_close("gradient", leaf.grad, scaled, scaled, BOUNDS[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dim", [0, 1])
def test_void_and_infinite_entries(backend: str, dim: int, device: str) -> None:
    nan = float("nan")
    teacher = torch.tensor([[0.0, -INF], [-INF, -INF], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [-INF, -INF]])
    student = torch.tensor([[0.0, -INF], [0.0, 0.0], [-INF, -INF], [0.0, nan], [nan, nan], [0.0, -INF], [0.0, nan]])
    if dim == 0:
        student, teacher = student.T, teacher.T
    student.requires_grad_()
    rows = kl_div(student.to(device), teacher.to(device), dim, reduction="none", backend=backend).cpu()
    assert rows[[0, 1, 2]].tolist() == [0.0, 0.0, 0.0]
    assert rows[[3, 4]].isnan().all()
    assert rows[5] == INF
    (gradient,) = torch.autograd.grad(rows[:3].sum(), student)
    assert not gradient.select(1 - dim, 0).any()
    assert not gradient.select(1 - dim, 1).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 4)])
def test_empty_input(backend: str, shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    loss = kl_div(student, torch.zeros(shape), 1, backend=backend)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.shape == shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weight_masks_whatever_it_covers(backend: str) -> None:
    student = torch.tensor([[0.0, -INF], [float("nan"), 1.0], [0.0, 1.0]], requires_grad=True)
    teacher, weight = torch.zeros(3, 2), torch.tensor([0.0, 0.0, 1.0])
    got = kl_div(student, teacher, 1, weight=weight, reduction="sum", backend=backend)
    torch.testing.assert_close(got, kl_div(student[2:], teacher[2:], 1, reduction="sum", backend="reference"))
    (gradient,) = torch.autograd.grad(got, student)
    assert not gradient[:2].any()
    assert gradient[2].all()
    nothing = kl_div(student, teacher, 1, weight=torch.zeros(3), backend=backend)
    assert nothing.item() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("classes", [1, 5, 33, 64, 70, 2051, 50_000])
def test_masked_elements_are_as_if_they_were_not_there(classes: int, dtype: torch.dtype, backend: str, device: str) -> None:
    torch.manual_seed(0)
    count = 3 if classes > 3000 else 20
    student, teacher = torch.randn(2, count, classes).to(dtype)
    mask = torch.rand(count, classes) < 0.6
    mask[0], mask[1] = False, True
    # Whatever is hidden: NaN, infinities, the largest of all.
    for value, share in ((float("nan"), 0.3), (INF, 0.3), (900.0, 1.0)):
        hidden = ~mask & (torch.rand(mask.shape) < share)
        student, teacher = (x.masked_fill(hidden, value) for x in (student, teacher))
    expected, scale, gradient = reference(*(x.masked_fill(~mask, -INF) for x in (student, teacher)), 1, 2.0)
    nothing = ~mask.any(1)
    expected, scale = expected.masked_fill(nothing, 0.0), scale.masked_fill(nothing, 0.0)
    gradient = gradient.masked_fill(~mask, 0.0)
    loose = 1.0 if backend == "fused" else 20.0  # PyTorch adds 50,000 strided terms up less exactly
    for layout in ("rows", "rows apart", "columns", "mixed"):
        s, t = student, teacher
        if layout == "rows apart":
            s, t = (torch.nn.functional.pad(x, (0, 8))[:, :classes] for x in (s, t))
        elif layout != "rows":
            s, t = s.T.contiguous().T, t.T.contiguous().T if layout == "columns" else t
        leaf = s.detach().to(device).requires_grad_()
        rows = kl_div(leaf, t.to(device), 1, 2.0, reduction="none", backend=backend, mask=mask.to(device))
        (got,) = torch.autograd.grad(rows.sum(), leaf)
        assert backend == "reference" or layout == "rows apart" or got.stride() == leaf.stride()
        assert not rows.cpu()[nothing].any()
        assert not got.cpu()[~mask].any()
        assert_close(f"loss of {layout}", rows.cpu(), expected, scale, loose * BOUNDS[torch.float32])
        assert_close(f"gradient of {layout}", got.cpu(), gradient, gradient, loose * BOUNDS[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_is_broadcast_and_goes_with_weights(backend: str) -> None:
    student, teacher = torch.randn(2, 3, 70, requires_grad=True), torch.randn(2, 3, 70)
    mask, weight = (torch.rand(2, 1, 70) < 0.5).float(), torch.tensor([[1.0, 0.0, 2.0]])
    got = kl_div(student, teacher, 2, 2.0, weight, "sum", backend, mask=mask)
    parts = [
        kl_div(student[i][:, mask[i, 0] > 0], teacher[i][:, mask[i, 0] > 0], 1, 2.0, weight[0], "sum", "reference")
        for i in range(2)
    ]
    torch.testing.assert_close(got, parts[0] + parts[1])
    (gradient,), (expected,) = (torch.autograd.grad(x, student) for x in (got, parts[0] + parts[1]))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_that_the_mask_leaves_in_stays_nan(backend: str) -> None:
    student = torch.tensor([[float("nan"), 0.0, 1.0], [0.0, float("nan"), 1.0], [float("nan")] * 3])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    rows = kl_div(student, torch.zeros(3, 3), 1, reduction="none", backend=backend, mask=mask)
    assert rows.isnan().tolist() == [True, False, True]


def test_a_student_equal_to_its_teacher_has_no_loss() -> None:
    logits = torch.randn(64, 21, requires_grad=True)
    loss = kl_div(logits, logits.detach().clone(), 1, 4.0, backend="fused")
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_opcheck() -> None:
    student, teacher = torch.randn(3, 5, 7, requires_grad=True), torch.randn(3, 5, 7)
    op = torch.ops.detkd.kl_div.default
    torch.library.opcheck(op, (student, teacher, 1, 2.0, None, None, "mean", True))
    torch.library.opcheck(op, (student.half(), teacher.half(), 2, 2.0, torch.rand(3, 5), None, "none", True))
    torch.library.opcheck(op, (student.detach().transpose(0, 2), teacher.transpose(0, 2), 0, 2.0, None, None, "sum", False))
    mask = torch.rand(3, 5, 1).round()
    torch.library.opcheck(op, (student, teacher, 1, 2.0, None, mask.expand(3, 5, 7), "mean", True))
    mask = torch.rand(3, 1, 7).round()
    torch.library.opcheck(op, (student.detach(), teacher, 2, 2.0, None, mask.expand(3, 5, 7), "mean", True))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compile(reduction: str, dynamic: bool) -> None:
    def step(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_div(student * 2, teacher, 1, 2.0, reduction=reduction).sum()  # type: ignore[arg-type]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    student, teacher = torch.randn(3, 5, 7, requires_grad=True), torch.randn(3, 5, 7)
    got, expected = compiled(student, teacher), step(student, teacher)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, student), torch.autograd.grad(expected, student))


def test_backward_of_a_kept_graph_is_right_every_time() -> None:
    student, teacher = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    loss = 3 * kl_div(student, teacher, backend="fused")
    (expected,) = torch.autograd.grad(3 * kl_div(student, teacher, backend="reference"), student)
    for _ in range(3):
        loss.backward(retain_graph=True)
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, 4 * expected)


def test_backward_by_one_returns_the_forward_passs_memory() -> None:
    class Outputs(TorchDispatchMode):
        gradient = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.detkd.kl_div.default:
                self.gradient = out[1].data_ptr()
            return out

    student = torch.randn(8, 16, requires_grad=True)
    with Outputs() as outputs:
        loss = kl_div(student, torch.randn(8, 16), backend="fused")
    loss.backward()
    assert student.grad is not None
    assert student.grad.data_ptr() == outputs.gradient


def test_no_second_derivative() -> None:
    student = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(kl_div(student, torch.randn(2, 3), backend="fused"), student, create_graph=True)


def test_no_gradient_is_computed_where_none_is_wanted() -> None:
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    expected = kl_div(student, teacher).detach()
    with torch.no_grad():
        assert torch.equal(kl_div(student, teacher), expected)
    with torch.inference_mode():
        assert torch.equal(kl_div(student, teacher), expected)
    assert torch.ops.detkd.kl_div(student, teacher, 1, 1.0, None, None, "mean", False)[1].numel() == 0


def test_autocast_and_unlike_types() -> None:
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        logits = student @ torch.eye(7)
        assert logits.dtype == torch.bfloat16
        loss = kl_div(logits, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, kl_div(logits.float(), teacher, backend="reference"))
    loss.backward()
    assert student.grad is not None


def test_a_float16_gradient_survives_the_division_by_many_positions() -> None:
    student, teacher = torch.randn(30000, 4).half().requires_grad_(), torch.randn(30000, 4).half()
    scale = 65536.0  # what a gradient scaler multiplies a loss by
    (scale * kl_div(student, teacher, backend="fused")).backward()
    expected = reference(student.detach(), teacher, 1, 1.0)[2] * (scale / 30000)
    assert student.grad is not None
    assert_close("gradient", student.grad, expected, expected, BOUNDS[torch.float16])


def test_same_bits_from_several_threads_and_thread_counts() -> None:
    student, teacher = torch.randn(700, 80), torch.randn(700, 80)

    def run(_: int) -> tuple[float, Tensor]:
        loss, gradient = torch.ops.detkd.kl_div(student, teacher, 1, 2.0, None, None, "mean", True)
        return loss.item(), gradient

    first = run(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run(0)
    finally:
        torch.set_num_threads(threads)
    with ThreadPoolExecutor(4) as pool:
        for loss, gradient in [alone, *pool.map(run, range(8))]:
            assert loss == first[0]
            assert torch.equal(gradient, first[1])


def test_bad_arguments_are_named() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="`temperature`"):
        kl_div(x, x, temperature=0.0)
    with pytest.raises(ArgumentError, match="`reduction`"):
        kl_div(x, x, reduction="avg")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`dim`"):
        kl_div(x, x, dim=2)
    with pytest.raises(ArgumentError, match="`weight`"):
        kl_div(x, x, weight=torch.ones(5))
    with pytest.raises(ArgumentError, match="`mask`"):
        kl_div(x, x, mask=torch.ones(2))
    with pytest.raises(ArgumentError, match="`backend`"):
        kl_div(x, x, backend="gpu")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="float64"):
        kl_div(x.double(), x.double(), backend="fused")


def test_gradcheck_of_the_reference() -> None:
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    torch.autograd.gradcheck(lambda s: kl_div(s, teacher, 1, 2.0), student)


@pytest.mark.parametrize("name", ["avx512", "avx2", "portable"])
def test_every_instruction_set(name: str) -> None:
    """Runs this file's numeric tests again with the kernels of a narrower instruction set."""
    if name not in cpu_capabilities():
        with pytest.raises(subprocess.CalledProcessError):
            _run_numeric_tests(name)
        return
    _run_numeric_tests(name)


def _run_numeric_tests(name: str) -> None:
    chosen = "test_against_float64 or test_strided or test_void or test_zero or test_backends or test_a_student"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, "tests/ops"],
        env={**os.environ, "DETKD_CPU": name, "OMP_NUM_THREADS": "1"},  # threads are tested elsewhere
        check=True,
        timeout=300,
    )
