from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from detkd.errors import ArgumentError
from detkd.losses import BCKD, bckd


def boxes(batch: int, anchors: int, dtype: torch.dtype = torch.float32) -> Tensor:
    corner = torch.rand(batch, anchors, 2, dtype=dtype) * 50
    return torch.cat((corner, corner + 5 + torch.rand(batch, anchors, 2, dtype=dtype) * 40), -1)


def reference(student: Tensor, teacher: Tensor, student_boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    """The formula in float64, written with torchvision's GIoU and loops over nothing that detkd computes."""
    s, t = student.double(), teacher.double().sigmoid()
    gap = (t - s.sigmoid()).abs()
    classes = (F.binary_cross_entropy_with_logits(s, t, reduction="none") * gap).sum()
    giou = generalized_box_iou_loss(
        student_boxes.double().view(-1, 4), teacher_boxes.double().view(-1, 4), reduction="none", eps=1e-7
    )
    located = (giou * gap.amax(1).view(-1)).sum()
    return (classes + 4 * located) / t.amax(1).sum().clamp(min=1)


def test_value_by_hand() -> None:
    # One anchor, one class: teacher 1/2, student 3/4. BCE = -(ln 3/4 + ln 1/4)/2, gap 1/4; disjoint unit boxes one
    # apart: IoU 0, hull 3, union 2, GIoU = -1/3.
    student = torch.full((1, 1, 1), math.log(3.0))
    teacher = torch.zeros(1, 1, 1)
    student_boxes, teacher_boxes = torch.tensor([[[0.0, 0, 1, 1]]]), torch.tensor([[[2.0, 0, 3, 1]]])
    cross_entropy = -(math.log(0.75) + math.log(0.25)) / 2
    expected = 0.25 * cross_entropy + 4 * 0.25 * (4 / 3)
    assert bckd(student, teacher, student_boxes, teacher_boxes).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 17), (3, 80, 33)])
def test_against_float64(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    student, teacher = (torch.randn(shape) * 3).to(dtype), (torch.randn(shape) * 3).to(dtype)
    pair = boxes(shape[0], shape[2]), boxes(shape[0], shape[2])
    got = bckd(student, teacher, *pair)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), reference(student, teacher, *pair), rtol=2e-5, atol=1e-6)


def test_module_equals_function_on_strided_input() -> None:
    student, teacher = torch.randn(2, 9, 4).transpose(1, 2), torch.randn(2, 9, 4).transpose(1, 2)
    pair = boxes(2, 9), boxes(2, 9)
    got = BCKD(class_gain=2.0, box_gain=3.0)(student, teacher, *pair)
    torch.testing.assert_close(got, bckd(student.contiguous(), teacher, *pair, class_gain=2.0, box_gain=3.0))


def test_gradcheck_of_classes_and_boxes() -> None:
    teacher, fixed = torch.randn(2, 3, 5, dtype=torch.float64), boxes(2, 5, torch.float64)
    student = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    moving = boxes(2, 5, torch.float64).requires_grad_()
    # The box weight is held constant on purpose, so the classes are checked without the boxes' part.
    assert torch.autograd.gradcheck(lambda s: bckd(s, teacher, fixed, fixed, box_gain=0.0), (student,))
    assert torch.autograd.gradcheck(lambda b: bckd(student.detach(), teacher, b, fixed), (moving,))


def test_teacher_equal_to_student_costs_nothing_and_teacher_gets_no_gradient() -> None:
    logits, where = torch.randn(2, 3, 5), boxes(2, 5)
    assert bckd(logits, logits.clone(), where, where.clone()).item() == pytest.approx(0.0, abs=1e-6)
    student = torch.randn(2, 3, 5, requires_grad=True)
    teacher = torch.randn(2, 3, 5, requires_grad=True)
    bckd(student, teacher, boxes(2, 5), where.requires_grad_()).backward()
    assert teacher.grad is None
    assert where.grad is None


def test_single_class_still_teaches() -> None:
    # A softmax over one class would be identically zero.
    student = torch.zeros(1, 1, 4, requires_grad=True)
    bckd(student, torch.full((1, 1, 4), 2.0), boxes(1, 4), boxes(1, 4)).backward()
    assert student.grad is not None
    assert (student.grad < 0).all()


@pytest.mark.parametrize("anchors", [0, 5])
def test_empty_and_extreme_input_stay_finite(anchors: int) -> None:
    student = torch.full((2, 3, anchors), 1e4, requires_grad=True)
    loss = bckd(student, torch.full((2, 3, anchors), -1e4), torch.zeros(2, anchors, 4), torch.zeros(2, anchors, 4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(2, 3, 6), torch.randn(2, 3, 6), boxes(2, 6), boxes(2, 6)
    compiled = torch.compile(bckd, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), bckd(*inputs))


def test_misfit_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"student_boxes.*\[B, A, 4\]"):
        bckd(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), torch.zeros(1, 3, 4))
