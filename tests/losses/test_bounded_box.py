from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import BoundedBox, bounded_box

Boxes = tuple[Tensor, Tensor, Tensor, Tensor]


def refinements(count: int, dtype: torch.dtype = torch.float32) -> Boxes:
    """Boxes of student, teacher, labels and proposals, not far from each other."""
    corner = torch.rand(count, 2) * 50
    boxes = torch.cat((corner, corner + 10 + torch.rand(count, 2) * 30), -1)
    near = [boxes + torch.rand(count, 4) * 6 - 3 for _ in range(3)]
    return tuple(x.to(dtype) for x in (*near, boxes))  # type: ignore[return-value]


def offsets(box: list[float], proposal: list[float]) -> list[float]:
    width, height = proposal[2] - proposal[0], proposal[3] - proposal[1]
    return [
        10 * ((box[0] + box[2]) / 2 - (proposal[0] + proposal[2]) / 2) / width,
        10 * ((box[1] + box[3]) / 2 - (proposal[1] + proposal[3]) / 2) / height,
        5 * math.log((box[2] - box[0]) / width),
        5 * math.log((box[3] - box[1]) / height),
    ]


def reference(boxes: Boxes, labels: Tensor, margin: float) -> float:
    total, count = 0.0, 0
    for student, teacher, truth, proposal, label in zip(*(x.tolist() for x in (*boxes, labels)), strict=True):
        if label <= 0:
            continue
        count += 1
        target = offsets(truth, proposal)
        own, other = (
            sum((a - b) ** 2 for a, b in zip(offsets(box, proposal), target, strict=True)) for box in (student, teacher)
        )
        if own + margin > other:
            total += own
    return total / max(count, 1)


# A proposal of 10 × 10 at the label's place; a box moved by 1 to the right is wrong by one offset of 10 · 1/10.
PROPOSAL = torch.tensor([[0.0, 0, 10, 10]])


def moved(*steps: float) -> Tensor:
    return PROPOSAL + torch.tensor(steps)[:, None] * torch.tensor([1.0, 0, 1, 0])


def test_only_boxes_worse_than_the_teachers_cost() -> None:
    same = PROPOSAL.expand(3, -1)
    found = bounded_box(moved(2.0, 1.0, 3.0), moved(1.0, 2.0, 3.0), same, same, torch.ones(3, dtype=torch.int64))
    assert found.item() == pytest.approx(2.0**2 / 3, rel=1e-6)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, 0.0), (2.9, 0.0), (3.1, 1.0)])
def test_a_margin_asks_to_be_better_than_the_teacher(margin: float, expected: float) -> None:
    # Errors 1 of the student and 4 of the teacher.
    found = bounded_box(moved(1.0), moved(2.0), PROPOSAL, PROPOSAL, torch.tensor([7]), margin=margin)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_against_plain_loops(dtype: torch.dtype, count: int, margin: float) -> None:
    boxes, labels = refinements(count, dtype), torch.randint(-1, 4, (count,))
    labels[0] = 3
    found = bounded_box(*boxes, labels, margin=margin)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(boxes, labels, margin), rel=1e-4)


def test_gradcheck_and_no_gradient_but_for_the_student() -> None:
    student, *others = (x.requires_grad_() for x in refinements(6, torch.float64))
    labels = torch.tensor([1, 0, 2, 3, -1, 1])
    loss = bounded_box(student, *others, labels, margin=0.5)
    assert loss > 0
    assert torch.autograd.gradcheck(lambda s: bounded_box(s, *others, labels, margin=0.5), (student,))
    loss.backward()
    assert [x.grad for x in others] == [None] * 3


def test_background_and_padded_rows_count_nothing() -> None:
    boxes, labels = refinements(4), torch.tensor([1, 2, 1, 3])
    expected = bounded_box(*boxes, labels)
    nothing = torch.zeros(4, 4)
    padded = [torch.cat((x, x[:2] + 9, nothing)).requires_grad_() for x in boxes]
    for index in (2, 3):  # a label without a proposal, and a proposal without a label
        padded[index].data[-index + 1] = torch.tensor([0.0, 0, 10, 10])
    found = bounded_box(*padded, torch.cat((labels, torch.tensor([0, -1, 1, 1, 1, 1]))))
    torch.testing.assert_close(found, expected)
    found.backward()
    gradient = padded[0].grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert not gradient[4:].any()


@pytest.mark.parametrize("value", [0.0, 1e4, 1e8])
def test_a_student_whose_boxes_collapse_or_explode_stays_finite(value: float) -> None:
    _, teacher, truth, proposals = refinements(3)
    student = torch.full((3, 4), value, requires_grad=True)
    loss = bounded_box(student, teacher, truth, proposals, torch.ones(3, dtype=torch.int64))
    loss.backward()
    assert loss > 0
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("count", [0, 5])
def test_without_a_row_that_counts_it_is_zero_and_so_is_its_gradient(count: int) -> None:
    student, *others = refinements(count)
    loss = bounded_box(student.requires_grad_(), *others, torch.zeros(count, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_module_equals_function_on_strided_input() -> None:
    boxes, labels = refinements(6), torch.arange(6)
    strided = [x.t().contiguous().t() for x in boxes]
    torch.testing.assert_close(BoundedBox(margin=2.0)(*strided, labels), bounded_box(*boxes, labels, margin=2.0))
    torch.testing.assert_close(BoundedBox()(*strided, labels), bounded_box(*boxes, labels))
    assert BoundedBox.default_weight == 0.5


def test_compiles_without_graph_breaks() -> None:
    inputs = *refinements(5), torch.arange(5)
    compiled = torch.compile(bounded_box, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), bounded_box(*inputs))


@pytest.mark.parametrize("index", range(4))
def test_misfits_are_named(index: int) -> None:
    boxes, labels = list(refinements(3)), torch.ones(3, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="margin"):
        bounded_box(*boxes, labels, margin=-1.0)
    boxes[index] = boxes[index][:2]
    name = ("student_boxes", "teacher_boxes", "matched_boxes", "proposals")[index]
    with pytest.raises(ArgumentError, match=name):
        bounded_box(*boxes, labels)
