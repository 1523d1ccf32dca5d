from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import RKD, rkd

Rows = list[list[float]]


def huber(x: float) -> float:
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def distances(rows: Rows) -> Rows:
    found = [[math.dist(a, b) for b in rows] for a in rows]
    apart = [d for row in found for d in row if d > 0]
    return [[d / (sum(apart) / len(apart)) for d in row] for row in found] if apart else found


def cosine(at: list[float], one: list[float], other: list[float]) -> float:
    a, b = ([x - y for x, y in zip(end, at, strict=True)] for end in (one, other))
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def reference(student: Tensor, teacher: Tensor, distance_gain: float, angle_gain: float) -> float:
    s, t = student.double().tolist(), teacher.double().tolist()
    n = range(len(s))
    near, far = distances(s), distances(t)
    pairs = sum(huber(near[i][j] - far[i][j]) for i in n for j in n) / len(s) ** 2
    if len(s) < 3:
        return distance_gain * pairs
    angles = sum(huber(cosine(s[i], s[j], s[k]) - cosine(t[i], t[j], t[k])) for i in n for j in n for k in n)
    return distance_gain * pairs + angle_gain * angles / len(s) ** 3


def test_value_by_hand() -> None:
    # On a line at 0, 1 and 3 the mean distance is 2, so that they are .5, 1 and 1.5; in an equilateral triangle all are 1.
    # Cosines 1, -1 and 1 against .5. Every pair counts twice of 9, every angle twice of 27.
    student = torch.tensor([[0.0], [1.0], [3.0]])
    teacher = 7 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    by_distance, by_angle = 2 * (0.125 + 0 + 0.125) / 9, 2 * (0.125 + 1.0 + 0.125) / 27
    assert rkd(student, teacher, angle_gain=0.0).item() == pytest.approx(25 * by_distance, rel=1e-5)
    assert rkd(student, teacher, distance_gain=0.0).item() == pytest.approx(50 * by_angle, rel=1e-5)
    assert rkd(student, teacher).item() == pytest.approx(25 * by_distance + 50 * by_angle, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 2), (2, 3, 5), (3, 1, 4), (7, 5, 3), (17, 33, 9)])
def test_against_plain_loops(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    count, own, other = shape
    student, teacher = torch.randn(count, own).to(dtype), torch.randn(count, other).to(dtype)
    found = rkd(student, teacher, distance_gain=2.0, angle_gain=3.0)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(student, teacher, 2.0, 3.0), rel=1e-4, abs=1e-7)


def test_samples_close_together_and_far_from_zero_keep_their_relations() -> None:
    student = torch.randn(6, 8) + 50
    student[1] = student[0] + 0.01 * torch.randn(8)
    teacher = torch.randn(6, 5)
    assert rkd(student, teacher).item() == pytest.approx(reference(student, teacher, 25.0, 50.0), rel=1e-4)


def test_scale_position_and_rotation_of_an_embedding_do_not_matter() -> None:
    student = torch.randn(6, 8)
    turned = 7 * student @ torch.linalg.qr(torch.randn(8, 8)).Q + 3
    assert rkd(student, turned).item() == pytest.approx(0, abs=1e-8)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: rkd(s, teacher.detach()), (student,))
    rkd(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-3])
def test_samples_that_almost_coincide_get_a_bounded_gradient(apart: float) -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 3)
    student[1] = student[0] + apart
    student.requires_grad_()
    loss = rkd(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert 0 < student.grad.abs().max() < 1e4


def test_coincident_samples_are_worth_what_plain_loops_say() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 3)
    student[1] = student[0]
    teacher[3] = teacher[2]
    assert rkd(student, teacher).item() == pytest.approx(reference(student, teacher, 25.0, 50.0), rel=1e-4)


def test_a_collapsed_student_has_nowhere_to_go() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    loss = rkd(student, torch.randn(4, 5))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 0)])
def test_no_relations_cost_nothing(shape: tuple[int, int]) -> None:
    student = torch.randn(shape).requires_grad_()
    loss = rkd(student, torch.randn(shape[0], 4))
    loss.backward()
    assert loss.item() == 0


def test_two_samples_have_no_angle() -> None:
    student = torch.zeros(2, 3, requires_grad=True)
    assert rkd(student, torch.randn(2, 4), distance_gain=0.0).item() == 0
    assert rkd(student, torch.randn(2, 4)).item() == pytest.approx(25 * 2 * 0.5 / 4)  # distance 0 against 1


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_any_magnitude_gives_the_same_loss(size: float) -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 9)
    found = (student * size).requires_grad_()
    loss = rkd(found, teacher / size)
    loss.backward()
    torch.testing.assert_close(loss, rkd(student, teacher))
    assert found.grad is not None
    assert found.grad.isfinite().all()
    assert found.grad.any()


def largest_kept(count: int, dimension: int, **gains: float) -> int:
    """Numbers in the largest tensor that the backward pass needs."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        rkd(torch.randn(count, dimension, requires_grad=True), torch.randn(count, dimension), **gains)
    return max(kept)


def test_memory_does_not_multiply_pairs_or_triplets_by_the_dimension() -> None:
    assert largest_kept(20, 500) == 20 * 500
    assert largest_kept(20, 3) == 20**3
    assert largest_kept(20, 3, angle_gain=0.0) == 20**2


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(3, 6).T, torch.randn(6, 10)[:, ::2]
    settings = {"distance_gain": 2.0, "angle_gain": 0.5}
    found = RKD(**settings)(student, teacher)
    torch.testing.assert_close(found, rkd(student.contiguous(), teacher.contiguous(), **settings))
    torch.testing.assert_close(RKD()(student, teacher), rkd(student, teacher))


def test_autocast_keeps_the_distances_in_float32() -> None:
    student, teacher = torch.randn(6, 30), torch.randn(6, 20)
    expected = rkd(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rkd(student, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 3)
    compiled = torch.compile(rkd, fullgraph=True, backend="aot_eager")
    losses, gradients = [], []
    for call in (rkd, compiled):
        leaf = student.clone().requires_grad_()
        losses.append(call(leaf, teacher))
        losses[-1].backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match="`teacher_embedding` to hold the student's 2 samples"):
        rkd(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ArgumentError, match=r"`student_embedding` to be \[N, D\]"):
        rkd(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="floating point"):
        rkd(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long))
