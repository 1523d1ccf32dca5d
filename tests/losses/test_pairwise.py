from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import Pairwise, pairwise


def nodes(image: Tensor, size: int) -> list[list[float]]:
    """The largest value of each channel in every patch of an image [C, H, W]."""
    _, height, width = image.shape
    patch = math.ceil(max(height, width) / size)
    corners = product(range(0, height, patch), range(0, width, patch))
    return [image[:, y : y + patch, x : x + patch].double().amax((1, 2)).tolist() for y, x in corners]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def reference(student: Tensor, teacher: Tensor, size: int) -> float:
    errors = []
    for one, other in zip(student, teacher, strict=True):
        s, t = nodes(one, size), nodes(other, size)
        errors += [(cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for i in range(len(s)) for j in range(len(s))]
    return sum(errors) / len(errors)


def test_value_by_hand() -> None:
    # Two pixels, (1, 0) and (1, 1), at 45° in the student and at 180° in the teacher: one pair, counted in both orders.
    student = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([3.0, -2.0]).view(1, 1, 1, 2)
    expected = 2 * (1 / math.sqrt(2) + 1) ** 2 / 4
    assert pairwise(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_pooling_by_hand() -> None:
    # Two patches of two columns: channel maxima (2, 1) and (0, 3), against (1, 0) and (0, 1).
    student = torch.tensor([[1.0, 2.0, 0.0, -1.0], [1.0, 0.0, 3.0, 2.0]]).view(1, 2, 1, 4)
    teacher = torch.tensor([[1.0, 0.0, 0.0, -1.0], [0.0, -1.0, 1.0, 0.0]]).view(1, 2, 1, 4)
    assert pairwise(student, teacher, size=2).item() == pytest.approx(2 * (1 / math.sqrt(5)) ** 2 / 4, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("positions", "size"), [((1, 1), 4), ((5, 7), 16), ((5, 7), 3), ((9, 8), 4), ((2, 11), 3), ((6, 6), 1)]
)
def test_against_plain_loops(dtype: torch.dtype, positions: tuple[int, int], size: int) -> None:
    student, teacher = torch.randn(2, 3, *positions).to(dtype), torch.randn(2, 5, *positions).to(dtype)
    found = pairwise(student, teacher, size=size)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(student, teacher, size), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("positions", "expected"), [((80, 80), 16 * 16), ((20, 20), 10 * 10), ((13, 13), 13 * 13), ((40, 8), 14 * 3)]
)
def test_the_grid_is_as_fine_as_it_may_be(positions: tuple[int, int], expected: int) -> None:
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1], lambda x: x):
        pairwise(torch.randn(1, 2, *positions, requires_grad=True), torch.randn(1, 2, *positions))
    assert expected**2 in saved
    assert max(saved) <= max(expected**2, 2 * positions[0] * positions[1])


def test_the_length_of_a_pixel_does_not_matter() -> None:
    student = torch.randn(2, 3, 4, 4)
    assert pairwise(student, student * torch.rand(2, 1, 4, 4).add(0.1)).item() == pytest.approx(0, abs=1e-10)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(2, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    for size in (2, 16):
        assert torch.autograd.gradcheck(lambda s, size=size: pairwise(s, teacher.detach(), size=size), (student,))
    pairwise(student, teacher).backward()
    assert teacher.grad is None


def test_a_dead_pixel_gets_a_bounded_gradient_and_a_dead_map_none() -> None:
    student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 4, 4)
    student[0, :, 1, 2] = 0
    student[1] = 0
    student.requires_grad_()
    pairwise(student, teacher).backward()
    assert student.grad is not None
    assert 0 < student.grad[0, :, 1, 2].abs().max() < 1e3
    assert not student.grad[1].any()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_any_magnitude_gives_the_same_loss(size: float) -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    found = (student * size).requires_grad_()
    loss = pairwise(found, teacher / size)
    loss.backward()
    torch.testing.assert_close(loss, pairwise(student, teacher))
    assert found.grad is not None
    assert found.grad.isfinite().all()
    assert found.grad.any()


def test_an_image_of_another_magnitude_does_not_hide_the_others() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    expected = pairwise(student, teacher)
    student[0] *= 1e30
    torch.testing.assert_close(pairwise(student, teacher), expected)


@pytest.mark.parametrize("shape", [(0, 5, 4, 4), (2, 5, 0, 4), (2, 0, 4, 4)])
def test_nothing_costs_nothing(shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    loss = pairwise(student, torch.zeros(shape))
    loss.backward()
    assert loss.item() == 0


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(2, 6, 7, 3).permute(0, 3, 1, 2), torch.randn(2, 10, 6, 7)[:, ::2]
    found = Pairwise(size=3)(student, teacher)
    torch.testing.assert_close(found, pairwise(student.contiguous(), teacher.contiguous(), size=3))
    torch.testing.assert_close(Pairwise()(student, teacher), pairwise(student, teacher))


def test_autocast_keeps_the_inner_products_in_float32() -> None:
    student, teacher = torch.randn(2, 30, 4, 4), torch.randn(2, 20, 4, 4)
    expected = pairwise(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pairwise(student, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    compiled = torch.compile(Pairwise(size=3), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), pairwise(*inputs, size=3))


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match="teacher"):
        pairwise(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))
    with pytest.raises(ArgumentError, match=r"\[N, C, H, W\]"):
        pairwise(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="`size` to be at least 1"):
        pairwise(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), size=0)
