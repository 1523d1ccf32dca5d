"""Several teachers, and terms that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.distiller import Distiller
from detkd.errors import AdapterError
from detkd.schedules import Schedule
from detkd.teachers.ensemble import confidence_weights, label_loss
from detkd.teachers.live import LiveTeacher
from detkd.terms import Term
from detkd.types import Targets
from tests.adapters.families import build

if TYPE_CHECKING:
    from torch import nn

SIZE = 64
TARGETS = Targets(torch.tensor([[[4.0, 4, 40, 40]], [[20.0, 20, 60, 50]]]), torch.tensor([[0], [1]]))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def student() -> nn.Module:
    return build("yolo11n").train()


def sharp(name: str) -> LiveTeacher:
    """An untrained teacher with scores that are not all near 0."""
    model = build(name)
    for branch in model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].bias, 0.0, 1.0)
    return LiveTeacher(UltralyticsAdapter(model))


def test_a_trial_leaves_frozen_statistics_frozen_and_the_others_at_work(student: nn.Module, images: torch.Tensor) -> None:
    norms = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms[:5]:
        norm.eval()
    make(student, [sharp("yolov8n")], Term("pkd")).try_out(images)
    assert [norm.training for norm in norms] == [False] * 5 + [True] * (len(norms) - 5)


def distil(student: nn.Module, distiller: Distiller, images: torch.Tensor) -> tuple[object, list[torch.Tensor]]:
    """One step's distillation, and the gradients that it leaves at the student."""
    distiller.attach()
    student.zero_grad(set_to_none=True)
    student(images)
    result = distiller(images, TARGETS, torch.ones((), requires_grad=True))
    if result.loss.requires_grad:
        result.loss.backward()
    distiller.detach()
    return result, [p.grad for p in student.parameters() if p.grad is not None]


def assert_near(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    one, other = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (found, expected))
    assert (one - other).norm() < 1e-4 * other.norm()


def make(student: nn.Module, teachers: list[LiveTeacher], *terms: Term, **rest: object) -> Distiller:
    return Distiller(UltralyticsAdapter(student), teachers, terms or [Term("bckd"), Term("at")], "none", **rest)


def test_fixed_shares_mix_what_each_teacher_gives(student: nn.Module, images: torch.Tensor) -> None:
    teachers = [sharp("yolov8n"), sharp("yolov5n")]
    (one, first), (two, second) = (distil(student, make(student, [teacher]), images) for teacher in teachers)
    both, mixed = distil(student, make(student, teachers, weights=[3.0, 1.0]), images)
    for name in ("bckd", "at"):
        assert both.terms[name] == pytest.approx(float(0.75 * one.terms[name] + 0.25 * two.terms[name]), rel=1e-4)
    assert_near(mixed, [0.75 * a + 0.25 * b for a, b in zip(first, second, strict=True)])


def test_confidence_weighs_each_image(student: nn.Module, images: torch.Tensor) -> None:
    """Batch statistics frozen, a batch's gradient is the sum of its images', each weighted by its own teachers."""
    student.eval()
    teachers = [sharp("yolov8n"), sharp("yolov5n")]
    distiller = make(student, teachers, Term("at"), ensemble="ca_mkd")
    _, got = distil(student, distiller, images)
    distiller.attach()
    student(images)
    distiller._student.take_outputs()
    pairs = zip(distiller._pairs(), teachers, strict=True)
    losses = [label_loss(terms.candidates(teacher.run(images), (SIZE, SIZE)), TARGETS) for terms, teacher in pairs]
    distiller.detach()
    weights = confidence_weights(torch.stack(losses))
    assert weights.std() > 1e-3
    expected = [torch.zeros_like(gradient) for gradient in got]
    for index, teacher in enumerate(teachers):
        for image in range(2):
            _, part = distil(student, make(student, [teacher], Term("at")), images[image : image + 1])
            for total, gradient in zip(expected, part, strict=True):
                total.add_(weights[index, image] * gradient / 2)  # the loss is a mean over images
    assert_near(got, expected)


def test_teachers_of_unlike_levels_classes_and_sizes_teach_together(student: nn.Module, images: torch.Tensor) -> None:
    larger = LiveTeacher(UltralyticsAdapter(build("yolov8n-p2")), scale=2.0)
    renamed = LiveTeacher(UltralyticsAdapter(build("yolo26n", ("ring", "square"))), classes={"disc": "ring"})
    terms = [Term(name) for name in ("bckd", "ld", "pkd", "cross_kd", "fgd")]
    distiller = make(student, [larger, renamed], *terms, ensemble="ca_mkd")
    result, gradients = distil(student, distiller, images)
    assert all(value > 0 for value in result.terms.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(p.grad is not None for p in distiller.parameters())


def test_confidence_needs_two_teachers_and_common_classes(student: nn.Module) -> None:
    with pytest.raises(AdapterError, match="two teachers or more"):
        make(student, [sharp("yolov8n")], ensemble="ca_mkd")
    stranger = LiveTeacher(UltralyticsAdapter(build("yolov8n", ("cat", "dog"))))
    with pytest.raises(AdapterError, match="`ca_mkd`"):
        make(student, [sharp("yolov8n"), stranger], Term("pkd"), ensemble="ca_mkd")


def test_a_stopped_term_is_not_computed_and_an_idle_teacher_does_not_run(student: nn.Module, images: torch.Tensor) -> None:
    teacher = sharp("yolov8n")
    calls = []
    teacher.adapter.model.register_forward_hook(lambda *_: calls.append(1))
    distiller = make(student, [teacher], Term("at", schedule=Schedule(stop=1)), Term("bckd", schedule=Schedule(stop=2)))
    distiller.epochs = 3
    found = []
    for epoch in range(3):
        distiller.epoch = float(epoch)
        result, gradients = distil(student, distiller, images)
        found.append((float(result.terms["at"]) > 0, float(result.terms["bckd"]) > 0, len(calls), len(gradients) > 0))
    assert found == [(True, True, 1, True), (False, True, 2, True), (False, False, 2, False)]


@pytest.mark.parametrize("balance", ["none", "gradient_ratio", "uncertainty"])
def test_a_schedule_multiplies_the_weight(student: nn.Module, images: torch.Tensor, balance: str) -> None:
    weights = []
    for schedule in (Schedule(), Schedule(warmup=4)):
        term = Term("bckd", weight=0.5, schedule=schedule)
        distiller = Distiller(UltralyticsAdapter(student), [sharp("yolov8n")], [term], balance)
        distiller.epoch, distiller.epochs = 1.0, 10.0
        distiller.attach()
        outputs = student(images)
        task = outputs["scores"].square().mean()
        weights.append(float(distiller(images, TARGETS, task).weights["bckd"]))
        distiller.detach()
    assert weights[1] == pytest.approx(weights[0] / 4, rel=0.05)


def test_learned_weights_get_gradients_and_are_saved(student: nn.Module, images: torch.Tensor) -> None:
    distiller = Distiller(UltralyticsAdapter(student), [sharp("yolov8n")], [Term("bckd"), Term("pkd")], "uncertainty")
    distil(student, distiller, images)
    learned = {name: p for name, p in distiller.named_parameters() if "log_variances" in name}
    assert len(learned) == 2
    assert all(p.grad is not None and p.grad != 0 for p in learned.values())
    assert learned.keys() <= distiller.state_dict().keys()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_teacher_in_half_precision_says_nearly_the_same(images: torch.Tensor, precision: str) -> None:
    full, half = (LiveTeacher(UltralyticsAdapter(build("yolov8n")), precision=p) for p in ("float32", precision))
    outputs = []
    for teacher in (full, half):
        teacher.attach()
        outputs.append(teacher.run(images))
        teacher.detach()
    assert outputs[1].features[0].dtype == getattr(torch, precision)
    torch.testing.assert_close(outputs[1].heads[0].logits.float(), outputs[0].heads[0].logits, rtol=2e-2, atol=5e-2)


def test_what_would_drown_the_task_is_held_back_and_named(student: nn.Module, images: torch.Tensor) -> None:
    distiller = Distiller(UltralyticsAdapter(student), [sharp("yolov8n")], [Term("bckd"), Term("pkd", weight=0.25)])
    distiller.attach()
    outputs = student(images)
    task = 1e-6 * outputs["scores"].square().mean()
    distiller(images, TARGETS, task)
    distiller.detach()
    lines = distiller.held_back()
    assert [line.split(":")[0] for line in lines] == ["bckd", "pkd"]
    assert "published weight 6" in lines[1]
    assert "held at 0.25 times" in lines[1]
    assert make(student, [sharp("yolov8n")]).held_back() == []
