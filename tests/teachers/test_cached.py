"""A cached teacher beside a live one, for heads of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.distiller import Distillation, Distiller
from detkd.errors import CacheError
from detkd.teacher_terms import kept_for
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.making import CacheMaker
from detkd.teachers.packing import Kept
from detkd.teachers.pictures import spread
from detkd.teachers.source import Source
from detkd.teachers.store import View
from detkd.terms import Term
from detkd.types import Targets
from tests.adapters.families import build
from tests.teachers.noise import IMAGES, Noise, opinionated


def step(student: nn.Module, teacher: LiveTeacher | CachedTeacher, terms: Sequence[Term], views: Any) -> Distillation:
    torch.manual_seed(0)
    distiller = Distiller(UltralyticsAdapter(student), [teacher], terms, "none")
    distiller.attach()
    images = next(Noise().load(views, IMAGES))
    student.train()(images)
    targets = Targets(
        torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]).expand(IMAGES, -1, -1), torch.zeros(IMAGES, 1, dtype=torch.long)
    )
    result = distiller(images, targets, torch.ones((), requires_grad=True), views)
    distiller.detach()
    return result


@pytest.mark.parametrize(
    ("teacher", "student", "scale"),
    [
        ("yolov8n", "yolo11n", 2.0),
        ("yolov8n-p6", "yolov5n", 1.0),  # a level that the student has not
        ("yolov10n", "yolov8n", 1.0),  # two heads
        ("yolo26n", "yolo26n", 1.0),  # two heads without distributions
        ("yolo11n-seg", "yolov8n-seg", 1.0),
    ],
)
def test_terms_are_those_beside_the_live_teacher(teacher: str, student: str, scale: float, tmp_path: Path) -> None:
    names = ["bckd", "ld", "pkd", "hard_label", *(["mask_kd"] if "seg" in teacher else ["cross_kd"])]
    terms = [Term(name) for name in names]
    model, learner = opinionated(teacher), build(student)
    live = LiveTeacher(UltralyticsAdapter(model), scale=scale)
    source = Source(live, kept_for(UltralyticsAdapter(learner), live, terms, 10_000), Noise())
    CacheMaker(source, tmp_path, batch=3).make(lambda _: None)
    cached = CachedTeacher(source, tmp_path)
    views = [View("full", 1, image) for image in range(IMAGES)]
    expected, found = step(learner, live, terms, views), step(learner, cached, terms, views)
    for name, value in expected.terms.items():
        assert value > 0
        assert found.terms[name].item() == pytest.approx(value.item(), rel=5e-3), name


def test_views_of_the_check_lie_all_over_the_cache() -> None:
    assert spread(Noise(), "full", 4) == [View("full", 0, 1), View("full", 0, 3), View("full", 1, 1), View("full", 1, 3)]
    assert len(set(spread(Noise(), "closed", 99))) == IMAGES


def test_a_teacher_that_says_nan_makes_no_cache(tmp_path: Path) -> None:
    model = opinionated("yolov8n")
    source = Source(LiveTeacher(UltralyticsAdapter(model)), Kept(50), Noise())
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(CacheError, match="Expected finite outputs of the teacher"):
        CacheMaker(source, tmp_path, batch=2).make(lambda _: None)
    assert not list(tmp_path.glob("*.safetensors"))
