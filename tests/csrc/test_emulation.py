"""The very sources of the CUDA kernels, run on the host, against float64."""

from __future__ import annotations

import pytest
import torch
from cuda_emulation import TYPES, Emulation
from torch import Tensor

from tests.ops.reference import BOUNDS, assert_close
from tests.ops.test_binary_kl import reference as binary_reference
from tests.ops.test_feature_maps import focal, pearson, transfer
from tests.ops.test_kl_div import reference

INF, NAN = float("inf"), float("nan")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return `x` in memory that begins at an odd address, or that is part of something wider; dense otherwise."""
    if layout == "unaligned":
        room = torch.empty(x.numel() + 1, dtype=x.dtype)
        return room[1:].view(x.shape).copy_(x)
    if layout == "slice":
        # Sixteen bytes more along every dimension but the neighbours' one: still aligned where the shape is.
        more = 16 // x.element_size()
        wider = torch.empty([x.shape[0], *(n + more if n > 1 else 1 for n in x.shape[1:])], dtype=x.dtype)
        return wider[tuple(slice(0, n) for n in x.shape)].copy_(x)
    return x.contiguous()


LAYOUTS = ["dense", "unaligned", "slice"]

# Lanes of a warp hold a row (in each way of sharing it out), a block does, nobody does; the same for columns.
ROWS = [(37, 5, 1), (9, 12, 1), (3, 16, 1), (3, 80, 1), (2, 151, 1), (2, 1000, 1), (2, 2000, 1), (3, 999, 1)]
LONG_ROWS = [(1, 3001, 1), (1, 24000, 1)]
COLUMNS = [(3, 21, 19), (2, 80, 32), (2, 150, 72), (300, 2, 1), (5, 16, 8)]
LONG_COLUMNS = [(2, 101, 7), (2, 261, 16)]


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [*ROWS, *LONG_ROWS, *COLUMNS, *LONG_COLUMNS])
def test_kl_div_against_float64(emulation: Emulation, shape: tuple[int, int, int], layout: str, dtype: torch.dtype) -> None:
    for near in (False, True):
        student, noise = 3 * torch.randn(shape), torch.randn(shape)
        teacher = (student + 1e-2 * noise if near else 3 * noise).masked_fill(torch.rand(shape) < 0.1, -INF).to(dtype)
        teacher[:, 0] = 0.0
        student = student.to(dtype)
        weight = torch.rand(shape[0], shape[2]) * (torch.rand(shape[0], shape[2]) < 0.8)
        rows, scale, gradient = reference(student, teacher, 1, 2.0)
        student, teacher = laid_out(student, layout), laid_out(teacher, layout)
        for reduced, by in ((False, None), (True, weight)):
            factor = torch.ones_like(weight) if by is None else by
            loss, got = emulation.kl_div(student, teacher, 2.0, by, reduced)
            expected, size = rows * factor, scale * factor
            if reduced:
                expected, size = expected.sum(), size.sum()
            assert_close("loss", loss, expected, size, BOUNDS[torch.float32])
            slope = gradient * factor.unsqueeze(1)
            assert_close("gradient", got, slope, slope, BOUNDS[dtype])


@pytest.mark.parametrize("shape", [(3, 1000, 1), (3, 10000, 1), (2, 100000, 1), (2, 100, 8), (2, 300, 8), (1, 50000, 8)])
@pytest.mark.parametrize("peaked", ["student", "teacher"])
@pytest.mark.parametrize("height", [10.0, 30.0])
def test_kl_div_of_a_peak_and_a_plain(
    emulation: Emulation, shape: tuple[int, int, int], peaked: str, height: float
) -> None:
    """The sum of exponentials of one is thousands of times that of the other."""
    torch.manual_seed(0)
    plain, peak = 0.01 * torch.randn(shape), torch.randn(shape)
    peak[:, shape[1] // 2] = height
    student, teacher = (peak, plain) if peaked == "student" else (plain, peak)
    rows, scale, slope = reference(student, teacher, 1, 1.0)
    loss, gradient = emulation.kl_div(student, teacher, 1.0, None, False)
    assert_close("loss", loss, rows, scale, BOUNDS[torch.float32])
    assert_close("gradient", gradient, slope, slope, BOUNDS[torch.float32])


@pytest.mark.parametrize("order", ["rising", "falling"])
@pytest.mark.parametrize("shape", [(2, 24000, 1), (2, 300, 8)])
def test_kl_div_of_maxima_that_move(emulation: Emulation, shape: tuple[int, int, int], order: str) -> None:
    """What is read once is rescaled with every new maximum, those of student and teacher apart."""
    ramp = torch.linspace(-60, 60, shape[1]).view(1, -1, 1).expand(shape)
    student, teacher = ramp + torch.randn(shape), ramp.flip(1) / 3 + torch.randn(shape)
    student[:, : shape[1] // 3] = -INF
    teacher[:, : shape[1] // 3] = -INF
    if order == "falling":
        student, teacher = student.flip(1), teacher.flip(1)
    rows, scale, slope = reference(student, teacher, 1, 1.0)
    loss, gradient = emulation.kl_div(student.contiguous(), teacher.contiguous(), 1.0, None, False)
    assert_close("loss", loss, rows, scale, BOUNDS[torch.float32])
    assert_close("gradient", gradient, slope, slope, BOUNDS[torch.float32])


@pytest.mark.parametrize("classes", [2, 3001])
@pytest.mark.parametrize("strided", [False, True])
def test_kl_div_of_voids_masks_and_nan(emulation: Emulation, strided: bool, classes: int) -> None:
    student = torch.tensor([[0.0, 1.0], [-INF, -INF], [0.0, NAN], [NAN, NAN], [0.0, -INF], [NAN, 0.0]])
    teacher = torch.tensor([[-INF, -INF], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    student, teacher = (torch.nn.functional.pad(x, (0, classes - 2), value=-INF) for x in (student, teacher))
    if strided:
        student, teacher, weight = student.T.contiguous()[None], teacher.T.contiguous()[None], weight[None]
    else:
        student, teacher, weight = student[..., None], teacher[..., None], weight[..., None]
    loss, gradient = emulation.kl_div(student, teacher, 1.0, weight, False)
    loss, gradient = loss.flatten(), gradient[0].T if strided else gradient[..., 0]
    assert loss[[0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    assert loss[[2, 3]].isnan().all()
    assert loss[4] == INF
    assert not gradient[[0, 1, 5]].any()
    assert gradient[[2, 3]].isnan().all()
    torch.testing.assert_close(gradient[4, :2], torch.tensor([0.5, -0.5]))
    assert not gradient[4, 2:].any()


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 5, 1), (4, 80, 1), (3, 2051, 1), (1, 24000, 1)])
def test_kl_div_with_a_mask(emulation: Emulation, shape: tuple[int, int, int], layout: str, dtype: torch.dtype) -> None:
    mask = torch.rand(shape) < 0.6
    mask[:1, 0], mask[1:2] = True, False
    student, teacher = (3 * torch.randn(shape).masked_fill(~mask, NAN) for _ in range(2))
    student, teacher = student.to(dtype), teacher.to(dtype)
    kept = [x.masked_fill(~mask, -INF) for x in (student, teacher)]
    rows, scale, gradient = reference(*kept, 1, 2.0)
    nothing = ~mask.any(1)
    rows, scale = rows.masked_fill(nothing, 0.0), scale.masked_fill(nothing, 0.0)
    gradient = gradient.masked_fill(~mask, 0.0)
    student, teacher = laid_out(student, layout), laid_out(teacher, layout)
    for offset in (0, 1):  # of the mask in its memory
        room = torch.full((mask.numel() + offset,), 7.0)
        by = room[offset:].view(shape).copy_(mask)
        loss, got = emulation.kl_div(student, teacher, 2.0, None, False, by)
        assert_close("loss", loss, rows, scale, BOUNDS[torch.float32])
        assert_close("gradient", got, gradient, gradient, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("kind", ["kl", "bce"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("shape", "layout"), [((7, 301), "dense"), ((7, 304), "slice"), ((1, 2001), "dense")])
def test_binary_kl_against_float64(
    emulation: Emulation, shape: tuple[int, int], layout: str, beta: float, kind: str, dtype: torch.dtype
) -> None:
    student, teacher = (5 * torch.randn(shape)).to(dtype), (5 * torch.randn(shape)).to(dtype)
    teacher[..., :99] = (student[..., :99].float() * 1.01).to(dtype)
    weight = torch.rand(shape) * (torch.rand(shape) < 0.8)
    values, scale, slope, size = binary_reference(student, teacher, 2.0, beta, kind)
    student, teacher = laid_out(student, layout), laid_out(teacher, layout)
    for reduced, by in ((False, weight), (True, None)):
        factor = torch.ones_like(weight) if by is None else by
        loss, gradient = emulation.binary_kl(student, teacher, 2.0, beta, kind, by, reduced)
        expected, terms = values * factor, scale * factor
        if reduced:
            expected, terms = expected.sum(), terms.sum()
        assert_close("loss", loss, expected, terms, BOUNDS[torch.float32])
        assert_close("gradient", gradient, slope * factor, size * factor, BOUNDS[dtype])


def test_binary_kl_of_infinite_and_masked_logits(emulation: Emulation) -> None:
    student = torch.tensor([[INF, -INF, INF, 0.0, NAN, NAN]])
    teacher = torch.tensor([[INF, -INF, -INF, INF, 0.0, 0.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    loss, gradient = emulation.binary_kl(student, teacher, 1.0, 0.0, "kl", weight, False)
    assert loss[0, [0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    assert loss[0, 2] == INF
    assert loss[0, 3].item() == pytest.approx(0.6931472)
    assert loss[0, 4].isnan()
    assert gradient[0, 4].isnan()
    assert gradient[0, [0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    assert emulation.binary_kl(student[:, :4], teacher[:, :4], 1.0, 0.0, "kl", None, True)[0] == INF


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["transfer p=2", "transfer p=1", "transfer p=3", "focal", "pearson"])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 3, 20, 32), (1, 37, 8, 10), (2, 2, 40, 60)])
def test_feature_maps_against_float64(
    emulation: Emulation, shape: tuple[int, ...], op: str, layout: str, dtype: torch.dtype
) -> None:
    student = (torch.randn(shape) + 1.0).to(dtype)
    teacher = (student.float() + 0.3 * torch.randn(shape)).to(dtype)
    weight = torch.rand(shape[0], *shape[2:]) * (torch.rand(shape[0], *shape[2:]) < 0.8)
    elements = shape[0] * shape[2] * shape[3]
    power = float(op[-1]) if "=" in op else 0.0
    name, options, divisor, formula = {
        "transfer": ("attention_transfer", (power,), elements, lambda s, t: transfer(s, t, power)),
        "focal": ("attention_mse", (0.5, 0.3), shape[0], lambda s, t: focal(s, t, weight)),
        "pearson": ("standardized_mse", (1e-6,), elements * shape[1], pearson),
    }[op.split(maxsplit=1)[0]]
    exact = student.double().requires_grad_()
    expected = formula(exact, teacher.double())
    (slope,) = torch.autograd.grad(expected, exact)
    # Undivided, as a float16 gradient comes: above the type's floor.
    slope = (slope * divisor).flatten(2)
    student, teacher = laid_out(student.flatten(2), layout), laid_out(teacher.flatten(2), layout)
    loss, gradient = emulation.on_maps(name, student, teacher, weight, *options)
    assert_close("loss", loss, expected.detach(), expected.detach(), BOUNDS[torch.float32])
    assert_close("gradient", gradient, slope, slope, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(256, 40 * 40), (128, 80 * 80)])
@pytest.mark.parametrize(("op", "options"), [("attention_transfer", (2.0,)), ("attention_mse", (0.5, 0.1))])
def test_scratch_is_a_twentieth_of_the_gradient(
    emulation: Emulation, op: str, options: tuple[float, ...], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    maps = torch.ones(1, *shape, dtype=dtype)
    _, gradient = emulation.on_maps(op, maps, maps, None, *options)
    assert emulation.workspace() < 0.05 * gradient.nbytes


def test_attention_transfer_takes_other_channel_counts(emulation: Emulation) -> None:
    student, teacher = torch.randn(2, 6, 40), torch.randn(2, 17, 40)
    loss, _ = emulation.on_maps("attention_transfer", student, teacher, None, 2.0)
    torch.testing.assert_close(loss, transfer(student[..., None], teacher[..., None]))


def test_standardized_mse_of_near_equals_and_of_constants(emulation: Emulation) -> None:
    teacher = torch.randn(2, 3, 5000)
    student = teacher + 1e-4 * torch.randn_like(teacher)
    student[:, 2] = 1.5
    exact = student.double()[..., None].requires_grad_()
    expected = pearson(exact, teacher.double()[..., None])
    (slope,) = torch.autograd.grad(expected, exact)
    loss, gradient = emulation.on_maps("standardized_mse", student, teacher, None, 1e-6)
    assert_close("loss", loss, expected.detach(), expected.detach(), BOUNDS[torch.float32])
    near = slope[:, :2, :, 0] * student.numel()
    assert_close("gradient", gradient[:, :2], near, near, BOUNDS[torch.float32])
    assert gradient[:, 2].isfinite().all()


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("layout", ["dense", "unaligned"])
def test_scale(emulation: Emulation, layout: str, dtype: torch.dtype) -> None:
    gradient = torch.randn(1003).to(dtype) / 1024
    for factor in (1.0, 4.0, 65536.0 / 3):
        got = laid_out(gradient, layout)
        expected = (got.float() * factor).to(dtype)
        emulation.scale(got, torch.tensor(factor))
        assert torch.equal(got, expected)


def test_same_bits_on_every_run(emulation: Emulation) -> None:
    student, teacher = torch.randn(50, 80, 1), torch.randn(50, 80, 1)
    first = emulation.kl_div(student, teacher, 2.0, None, True)
    again = emulation.kl_div(student, teacher, 2.0, None, True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
