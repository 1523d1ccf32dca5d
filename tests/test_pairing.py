"""Teachers and students that are unlike each other."""

from __future__ import annotations

import pytest
import torch

from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.distiller import Distiller
from detkd.errors import AdapterError
from detkd.pairing import Pairing
from detkd.teachers.live import LiveTeacher
from detkd.terms import Term
from detkd.types import Targets
from tests.adapters.families import DETECTORS, SEGMENTERS, build

SIZE = 64
TERMS = ("bckd", "ld", "cross_kd", "pkd")


class Shape:
    """An adapter's attributes, without a model."""

    def __init__(self, strides: tuple[int, ...], classes: tuple[str, ...] = ("a", "b")) -> None:
        self.strides, self.class_names = strides, classes


@pytest.mark.parametrize(
    ("student", "teacher", "scale", "levels"),
    [
        ((8, 16, 32), (8, 16, 32), 1.0, [(0, 0), (1, 1), (2, 2)]),
        ((8, 16, 32), (4, 8, 16, 32), 1.0, [(0, 1), (1, 2), (2, 3)]),
        ((8, 16, 32), (8, 16, 32), 2.0, [(0, 1), (1, 2)]),  # the teacher's 16 of twice the pixels is the student's 8
        ((16, 32), (8, 16, 32), 0.5, [(0, 0), (1, 1)]),
    ],
)
def test_levels_meet_where_a_step_covers_as_much(
    student: tuple[int, ...], teacher: tuple[int, ...], scale: float, levels: list[tuple[int, int]]
) -> None:
    assert Pairing(Shape(student), Shape(teacher), scale=scale).levels == levels


def test_no_common_stride_is_refused() -> None:
    with pytest.raises(AdapterError, match="share a feature stride"):
        Pairing(Shape((8,)), Shape((16,)))


def test_classes_meet_by_name_or_by_map_and_a_misfit_lists_both() -> None:
    def classes(teacher: tuple[str, ...], given: dict[str, str] | None = None) -> object:
        pairing = Pairing(Shape((8,), ("cat", "dog")), Shape((8,), teacher), classes=given)
        pairing.check_classes("bckd")
        return pairing._classes

    assert classes(("cat", "dog")) == (None, None)
    assert classes(("dog", "bird", "cat")) == (None, [2, 0])
    assert classes(("feline", "dog"), {"cat": "feline"}) == (None, None)
    assert classes(("feline", "bird"), {"cat": "feline"}) == ([0], [0])
    with pytest.raises(AdapterError, match=r"\['cat', 'dog'\].*\['cat', 'bird'\].*teacher's `classes`"):
        classes(("cat", "bird"))
    with pytest.raises(AdapterError, match=r"student's classes .* got \['cow'\]"):
        classes(("cat", "dog"), {"cow": "cat"})
    with pytest.raises(AdapterError, match=r"teacher's classes .* got \['cow'\]"):
        classes(("cat", "dog"), {"cat": "cow"})


def test_labels_are_counted_in_common_classes() -> None:
    pairing = Pairing(Shape((8,), ("cat", "dog", "cow")), Shape((8,), ("cow", "feline")), classes={"cat": "feline"})
    assert pairing.common_classes(torch.tensor([[0, 1, 2, -1]])).tolist() == [[0, -1, 1, -1]]
    same = Pairing(Shape((8,)), Shape((8,)))
    assert same.common_classes(torch.tensor([[0, 1, -1]])).tolist() == [[0, 1, -1]]


def outputs_of(name: str, images: torch.Tensor, classes: tuple[str, ...] = ("disc", "square")) -> object:
    adapter = UltralyticsAdapter(build(name, classes).eval())
    adapter.attach()
    with torch.no_grad():
        adapter.model(images)
    return adapter, adapter.take_outputs()


def test_alignment_selects_levels_and_classes() -> None:
    images = torch.rand(1, 3, SIZE, SIZE)
    student, own = outputs_of("yolov8n", images)
    teacher, other = outputs_of("yolov8n-p2", images, ("square", "star", "disc"))
    aligned, found = Pairing(student, teacher).align(own, other)
    assert aligned is own
    torch.testing.assert_close(found.anchor_points, own.anchor_points)
    finest = (SIZE // 4) ** 2
    torch.testing.assert_close(found.heads[0].logits, other.heads[0].logits[:, [2, 0], finest:])
    torch.testing.assert_close(found.heads[0].bins, other.heads[0].bins[..., finest:])
    assert [f.shape for f in found.features] == [f.shape for f in other.features[1:]]


def test_a_teacher_of_a_larger_input_speaks_in_the_students_pixels() -> None:
    images = torch.rand(1, 3, SIZE, SIZE)
    student, own = outputs_of("yolov8n", images)
    teacher = LiveTeacher(UltralyticsAdapter(build("yolov8n")), scale=2.0)
    teacher.attach()
    other = teacher.run(images)
    aligned, found = Pairing(student, teacher.adapter, scale=2.0).align(own, other)
    assert len(other.anchor_points) == 4 * len(own.anchor_points)
    torch.testing.assert_close(found.anchor_points, aligned.anchor_points)
    assert len(found.features) == 2
    torch.testing.assert_close(found.heads[0].boxes, other.heads[0].boxes[:, (2 * SIZE // 8) ** 2 :] / 2)


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    return {name: build(name) for name in (*DETECTORS, *SEGMENTERS)}


@pytest.mark.parametrize("student_name", [*DETECTORS, *SEGMENTERS])
def test_every_family_learns_from_every_other(student_name: str, models: dict[str, torch.nn.Module]) -> None:
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0]], [[0.0, 0.0, 0.0, 0.0]]])
    labels = Targets(boxes, torch.tensor([[0], [-1]]))
    student = models[student_name].train()
    for teacher_name in SEGMENTERS if student_name in SEGMENTERS else DETECTORS:
        teacher = build(teacher_name) if teacher_name == student_name else models[teacher_name]
        names = (*TERMS, "mask_kd") if student_name in SEGMENTERS else TERMS
        distiller = Distiller(
            UltralyticsAdapter(student),
            [LiveTeacher(UltralyticsAdapter(teacher))],
            [Term(name) for name in names],
            balance="none",
        )
        distiller.attach()
        student(images)
        result = distiller(images, labels, torch.zeros(()))
        distiller.detach()
        for name, value in result.terms.items():
            assert torch.isfinite(value), (teacher_name, name)
            assert value > 0, (teacher_name, name)
        result.loss.backward()
        assert all(p.grad is not None for p in distiller.parameters()), teacher_name
        first = next(student.parameters())
        assert first.grad is not None, teacher_name
        assert torch.isfinite(first.grad).all(), teacher_name
        assert first.grad.any(), teacher_name
        assert all(p.grad is None for p in teacher.parameters()), teacher_name
        student.zero_grad(set_to_none=True)
        teacher.requires_grad_(True)  # the distiller froze it; it is a student in its turn


def test_both_heads_of_end_to_end_detectors_are_distilled() -> None:
    """The one-to-one head is the one that is used; it is fed detached features, so only its own loss trains it."""
    student, teacher = build("yolo26n").train(), build("yolov10n")
    distiller = Distiller(
        UltralyticsAdapter(student), [LiveTeacher(UltralyticsAdapter(teacher))], [Term("bckd")], balance="none"
    )
    distiller.attach()
    images = torch.rand(2, 3, SIZE, SIZE)
    student(images)
    nothing = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    distiller(images, nothing, torch.zeros(())).loss.backward()
    head = student.model[-1]
    assert head.one2one_cv3[0][-1].weight.grad.any()
    assert head.cv3[0][-1].weight.grad.any()


def test_mask_terms_need_segmenters() -> None:
    student, teacher = (UltralyticsAdapter(build("yolov8n")) for _ in range(2))
    with pytest.raises(AdapterError, match="to be segmenters for `mask_kd`"):
        Distiller(student, [LiveTeacher(teacher)], [Term("mask_kd")]).try_out(torch.zeros(1, 3, SIZE, SIZE))
