from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.errors import ArgumentError
from detkd.losses import LD, box_ld, ld, valuable_region


def reference(student: Tensor, teacher: Tensor, weights: list[Tensor], temperature: float) -> Tensor:
    p_s, p_t = (torch.softmax(x.double() / temperature, 2) for x in (student, teacher))
    each = temperature**2 * (p_t * (p_t / p_s).log()).sum(2).mean(1)
    return sum(0.25 * (each * w.double()).sum() / w.double().sum().clamp(min=1) for w in weights)


def test_value_by_hand() -> None:
    # Two bins, teacher (3/4, 1/4), student uniform, T 1, one anchor of weight 2: gain × KL, whatever the weight.
    teacher = torch.tensor([math.log(3.0), 0.0]).view(1, 1, 2, 1).expand(1, 4, 2, 1)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    got = ld(torch.zeros(1, 4, 2, 1), teacher, torch.tensor([[2.0]]), temperature=1.0, positive_gain=1.0)
    assert got.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch", "bins", "anchors"), [(1, 2, 1), (2, 16, 21), (3, 17, 64)])
def test_against_float64(dtype: torch.dtype, batch: int, bins: int, anchors: int) -> None:
    student, teacher = (torch.randn(batch, 4, bins, anchors).mul(4).to(dtype) for _ in range(2))
    weights = [torch.rand(batch, anchors), torch.rand(batch, anchors)]
    got = ld(student, teacher, *weights)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), reference(student, teacher, weights, 10.0), rtol=1e-4, atol=1e-7)


def test_gradcheck_and_no_gradient_for_the_teacher() -> None:
    student = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(1, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ld(s, teacher.detach(), weight, weight), (student,))
    ld(student, teacher, weight).backward()
    assert teacher.grad is None


def test_no_positive_gives_zero_and_no_gradient() -> None:
    student = torch.randn(2, 4, 16, 5, requires_grad=True)
    loss = ld(student, torch.randn(2, 4, 16, 5), torch.zeros(2, 5), torch.zeros(2, 5))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_valuable_region_lies_inside_labels_where_the_teacher_fits_but_does_not_score() -> None:
    points = torch.tensor([[5.0, 5.0], [5.0, 5.0], [50.0, 50.0]])
    label = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]]])  # the second one is padding
    fits = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]]])
    scores = torch.tensor([[0.25, 0.0, 0.0]])
    got = valuable_region(scores, fits, points, label)
    torch.testing.assert_close(got, torch.tensor([[0.75, 0.5, 0.0]]), rtol=1e-5, atol=1e-6)
    assert not valuable_region(scores, fits, points, torch.zeros(1, 0, 4)).any()


def test_module_equals_function_with_its_weights() -> None:
    student, teacher = torch.randn(2, 4, 16, 7), torch.randn(2, 4, 16, 7)
    scores, points = torch.rand(2, 7), torch.rand(7, 2) * 20
    teacher_boxes = torch.tensor([0.0, 0.0, 15.0, 15.0]).expand(2, 7, 4)
    labels = torch.tensor([0.0, 0.0, 18.0, 18.0]).expand(2, 1, 4)
    region = valuable_region(scores, teacher_boxes, points, labels)
    assert region.sum() > 0
    expected = ld(student, teacher, scores, region, temperature=2.0)
    rest = (teacher_boxes + 1, teacher_boxes, scores, points, labels)
    torch.testing.assert_close(LD(temperature=2.0)(student, teacher, *rest), expected)


@pytest.mark.parametrize(
    "bins", [(None, None), (torch.zeros(2, 4, 16, 7), None), (torch.zeros(2, 4, 8, 7), torch.zeros(2, 4, 16, 7))]
)
def test_heads_without_common_bins_are_distilled_by_their_boxes(bins: tuple[torch.Tensor | None, ...]) -> None:
    teacher, scores, points = torch.rand(2, 7, 4).cumsum(-1), torch.rand(2, 7), torch.rand(7, 2)
    student, labels = teacher + 0.1, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4)
    region = valuable_region(scores, teacher, points, labels)
    torch.testing.assert_close(
        LD(positive_gain=0.5)(*bins, student, teacher, scores, points, labels),
        box_ld(student, teacher, scores, region, positive_gain=0.5),
    )


def test_box_ld_by_hand() -> None:
    # Side by side without a gap: IoU 0, the hull is full, GIoU 0. The second anchor agrees: distance 0.
    student = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 1]]])
    teacher = torch.tensor([[[1.0, 0, 2, 1], [0, 0, 1, 1]]])
    weight = torch.tensor([[3.0, 1.0]])
    assert box_ld(student, teacher, weight, positive_gain=0.5).item() == pytest.approx(0.5 * 3 / 4)
    assert box_ld(student, teacher, weight, weight, positive_gain=0, region_gain=1).item() == pytest.approx(3 / 4)
    with pytest.raises(ArgumentError, match="teacher_boxes"):
        box_ld(student, teacher[:, :1], weight)


def test_compiles_without_graph_breaks() -> None:
    inputs = torch.randn(2, 4, 16, 5), torch.randn(2, 4, 16, 5), torch.rand(2, 5)
    torch.testing.assert_close(torch.compile(ld, fullgraph=True, backend="aot_eager")(*inputs), ld(*inputs))


def test_misfits_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"student_bins.*\[B, 4, R, A\]"):
        ld(torch.zeros(1, 64, 5), torch.zeros(1, 64, 5), torch.zeros(1, 5))
    with pytest.raises(ArgumentError, match="positive_weight"):
        ld(torch.zeros(1, 4, 2, 5), torch.zeros(1, 4, 2, 5), torch.zeros(1, 4))
