"""The three ops on feature maps: attention_transfer, attention_mse, standardized_mse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.ops import attention_mse, attention_transfer, standardized_mse
from tests.ops.reference import BACKENDS, BOUNDS, DEVICES, assert_close


def transfer(s: Tensor, t: Tensor, p: float = 2.0) -> Tensor:
    maps = [x.abs().pow(p).sum(1).flatten(1) for x in (s, t)]
    maps = [m / m.norm(dim=1, keepdim=True).clamp(min=1e-12) for m in maps]
    return (maps[0] - maps[1]).square().mean()


def focal(s: Tensor, t: Tensor, weight: Tensor, temperature: float = 0.5, gain: float = 0.3) -> Tensor:
    n, c, h, w = s.shape
    space = [h * w * (x.abs().mean(1).flatten(1) / temperature).softmax(1).view(n, 1, h, w) for x in (s, t)]
    depth = [c * (x.abs().mean((2, 3)) / temperature).softmax(1).view(n, c, 1, 1) for x in (s, t)]
    error = (weight.unsqueeze(1) * space[1] * depth[1] * (s - t).square()).sum()
    return (error + gain * ((space[0] - space[1]).abs().sum() + (depth[0] - depth[1]).abs().sum())) / n


def pearson(s: Tensor, t: Tensor) -> Tensor:
    z = [
        (x - x.mean((0, 2, 3), keepdim=True))
        / (x.var((0, 2, 3), correction=0, keepdim=True).clamp(min=1e-12).sqrt() + 1e-6)
        for x in (s, t)
    ]
    return 0.5 * (z[0] - z[1]).square().mean()


Op = tuple[Callable[..., Tensor], Callable[..., Tensor]]


def ops(weight: Tensor) -> dict[str, Op]:
    return {
        "transfer": (attention_transfer, transfer),
        "transfer p=1": (lambda s, t, **k: attention_transfer(s, t, 1.0, **k), lambda s, t: transfer(s, t, 1.0)),
        "transfer p=3": (lambda s, t, **k: attention_transfer(s, t, 3.0, **k), lambda s, t: transfer(s, t, 3.0)),
        "focal": (lambda s, t, **k: attention_mse(s, t, weight, 0.5, 0.3, **k), lambda s, t: focal(s, t, weight)),
        "pearson": (standardized_mse, pearson),
    }


NAMES = list(ops(torch.ones(1)))


def check(name: str, student: Tensor, teacher: Tensor, weight: Tensor, backend: str, device: str = "cpu") -> None:
    op, reference = ops(weight.to(device))[name][0], ops(weight)[name][1]
    student = student.detach().requires_grad_()
    exact = student.detach().double().requires_grad_()
    expected = reference(exact, teacher.double())
    (gradient,) = torch.autograd.grad(expected, exact)
    loss = op(student.to(device), teacher.to(device), backend=backend).cpu()
    # As a gradient scaler would: above the type's floor, and below its top.
    factor = 1024.0 if student.dtype == torch.float16 and name != "focal" else 1.0
    (factor * loss).backward()
    assert loss.dtype == torch.float32
    assert_close("loss", loss.detach(), expected.detach(), expected.detach().abs(), BOUNDS[torch.float32])
    assert student.grad is not None
    assert student.grad.dtype == student.dtype
    divided = student.numel() / (student.shape[1] if "transfer" in name else 1)  # in backward, from float16's values
    steps = factor / divided
    assert_close("gradient", student.grad, factor * gradient, factor * gradient, BOUNDS[student.dtype], steps)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_against_float64(name: str, device: str, data: st.DataObject) -> None:
    n, c, h, w = (data.draw(st.integers(low, high)) for low, high in ((1, 3), (1, 40), (3, 30), (5, 30)))
    dtype = data.draw(st.sampled_from(list(BOUNDS)), label="dtype")
    torch.manual_seed(data.draw(st.integers(0, 99), label="seed"))
    offset = data.draw(st.sampled_from([0.0, 3.0]), label="offset")
    student, teacher = torch.randn(n, c, h, w) + offset, torch.randn(n, c, h, w) + offset
    if data.draw(st.booleans(), label="similar"):
        teacher = student + 0.3 * torch.randn_like(student)
    weight = torch.rand(n, h, w) * (torch.rand(n, h, w) < 0.8)
    check(name, student.to(dtype), teacher.to(dtype), weight, "fused", device)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["channels_last", "slice of channels", "transposed", "expanded teacher"])
def test_layouts(name: str, layout: str, backend: str) -> None:
    student, teacher = torch.randn(2, 6, 9, 11), torch.randn(2, 6, 9, 11)
    if layout == "channels_last":
        student = student.to(memory_format=torch.channels_last)
    elif layout == "slice of channels":
        student, teacher = torch.randn(2, 13, 9, 11)[:, 3:9], torch.randn(2, 13, 9, 11)[:, :6]
    elif layout == "transposed":
        student = torch.randn(2, 6, 11, 9).transpose(2, 3)
    else:
        teacher = torch.randn(1, 6, 9, 11).expand(2, 6, 9, 11)
    check(name, student, teacher, torch.rand(2, 9, 11), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_transfer_takes_other_channel_counts(backend: str) -> None:
    check("transfer", torch.randn(2, 6, 9, 11), torch.randn(2, 17, 9, 11), torch.ones(1), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_by_hand(backend: str) -> None:
    student, teacher = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, -2.0]]]])
    assert attention_transfer(student, teacher, backend=backend).item() == pytest.approx(1.0)  # maps (1, 0) and (0, 1)
    # Both channels are standardised to (1, -1): equal.
    assert standardized_mse(student, torch.tensor([[[[7.0, 5.0]]]]), backend=backend).item() == pytest.approx(0, abs=1e-6)
    assert standardized_mse(student, -student, backend=backend).item() == pytest.approx(2.0, rel=1e-5)
    # Equal attention everywhere: weight 2 on one of two positions, squared error 4 there.
    one, three = torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[3.0, 3.0]]]])
    weight = torch.tensor([[[2.0, 0.0]]])
    assert attention_mse(one, three, weight, backend=backend).item() == pytest.approx(8.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_channels_zero_maps_and_masked_nan(backend: str) -> None:
    zeros = torch.zeros(2, 3, 4, 4, requires_grad=True)
    for op in (attention_transfer, standardized_mse, attention_mse):
        loss = op(zeros, torch.randn(2, 3, 4, 4), backend=backend)
        (gradient,) = torch.autograd.grad(loss, zeros)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert op(zeros, torch.zeros(2, 3, 4, 4), backend=backend).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_empty_input(backend: str, shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    for op in (attention_transfer, standardized_mse, attention_mse):
        loss = op(student, torch.zeros(shape), backend=backend)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, student)[0].shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """Kept graphs, float64, compile, inference, equal bits, unlike types."""
    student, teacher = torch.randn(2, 5, 9, 11, requires_grad=True), torch.randn(2, 5, 9, 11)
    op, _ = ops(torch.rand(2, 9, 11))[name]
    loss = 3 * op(student, teacher, backend="fused")
    (expected,) = torch.autograd.grad(3 * op(student, teacher, backend="reference"), student)
    for _ in range(2):
        loss.backward(retain_graph=True)
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, 3 * expected, rtol=1e-4, atol=1e-6)
    exact = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    op_small, _ = ops(torch.rand(1, 3, 3))[name]
    other = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    torch.autograd.gradcheck(lambda s: op_small(s, other), exact)
    compiled = torch.compile(lambda s, t: op(2 * s, t), fullgraph=True, backend="aot_eager")
    got, plain = compiled(student, teacher), op(2 * student, teacher)
    torch.testing.assert_close(got, plain)
    torch.testing.assert_close(torch.autograd.grad(got, student), torch.autograd.grad(plain, student))
    with torch.inference_mode():
        assert torch.equal(op(student, teacher), op(student, teacher))
    torch.testing.assert_close(op(student.half(), teacher), op(student.half().float(), teacher))


def test_opcheck() -> None:
    student, teacher = torch.randn(2, 5, 4, 3, requires_grad=True), torch.randn(2, 5, 4, 3)
    ops_ = torch.ops.detkd
    torch.library.opcheck(ops_.attention_transfer.default, (student, teacher, 2.0, True))
    torch.library.opcheck(ops_.attention_mse.default, (student, teacher, torch.rand(2, 4, 3), 0.5, 0.1, True))
    torch.library.opcheck(ops_.standardized_mse.default, (student.half(), teacher.half(), 1e-6, True))
    torch.library.opcheck(ops_.binary_kl.default, (student, teacher, 2.0, 1.0, "bce", None, "mean", True))
    torch.library.opcheck(ops_.binary_kl.default, (student, teacher, 2.0, 0.0, "kl", teacher.abs(), "none", True))


def test_bad_arguments_are_named() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ArgumentError, match="`student`"):
        standardized_mse(maps[0], maps[0])
    with pytest.raises(ArgumentError, match="`teacher`"):
        attention_transfer(maps, maps[:, :, :2])
    with pytest.raises(ArgumentError, match="`p`"):
        attention_transfer(maps, maps, 0.5)
    with pytest.raises(ArgumentError, match="`temperature`"):
        attention_mse(maps, maps, temperature=0.0)
    with pytest.raises(ArgumentError, match="`attention_gain`"):
        attention_mse(maps, maps, attention_gain=-1.0)
    with pytest.raises(ArgumentError, match="`weight`"):
        attention_mse(maps, maps, torch.ones(3, 5))
