"""Where models look, on levels that meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkd.engines import attention
from detkd.engines.attention import features_of, with_attention
from detkd.engines.families import FAMILIES
from detkd.engines.tasks import Judged
from detkd.model_config import ModelConfig
from detkd.models import torchvision
from detkd.models.ultralytics import build_yolo
from detkd.report.gallery import Gallery, Shown
from tests.engines.conftest import NAMES, TINY_RCNN


def yolo(imgsz: int, model: str = "yolov5n.yaml") -> Judged:
    built, _ = build_yolo(ModelConfig(model=model, width=0.0625), NAMES, role="student")
    return Judged(built, FAMILIES["yolo"], {}, imgsz)


def rcnn(imgsz: int) -> Judged:
    built, _ = torchvision.build_model(ModelConfig(**TINY_RCNN), NAMES, role="teacher", imgsz=imgsz)
    return Judged(built, FAMILIES["torchvision"], {}, imgsz)


def pictures(*shapes: tuple[int, int]) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]


def gallery(count: int) -> Gallery:
    return Gallery(tuple(Shown(str(number), {}) for number in range(count)))


@pytest.mark.parametrize("imgsz", [64, 100])  # ultralytics trains at 128 where it is asked for 100
def test_every_picture_has_maps_of_both_on_the_levels_that_meet(imgsz: int) -> None:
    student = yolo(imgsz)
    before = student.model.training
    shown = with_attention(gallery(2), pictures((40, 60), (90, 30)), {"student": student, "teacher": yolo(2 * imgsz)})
    for entry, (height, width) in zip(shown.pictures, ((267, 400), (400, 133)), strict=True):
        # Strides 8, 16, 32 of the student meet 16, 32, 64 of a teacher of twice the size, who has no 64.
        assert [one.level for one in entry.attention] == ["stride 8", "stride 16"]
        for one in entry.attention:
            assert list(one.views) == ["teacher", "student"]
            assert {view.shape for view in one.views.values()} == {(height, width, 3)}
    assert student.model.training == before


def test_a_student_alone_and_one_whose_levels_meet_none_have_maps_of_their_own() -> None:
    alone = with_attention(gallery(1), pictures((50, 50)), {"student": rcnn(64)})
    assert 1 <= len(alone.pictures[0].attention) <= 3
    apart = with_attention(gallery(1), pictures((50, 50)), {"student": yolo(64), "teacher": yolo(40)})
    assert {role for one in apart.pictures[0].attention for role in one.views} == {"student"}


def test_maps_lie_over_what_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness(_: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.avg_pool2d(inputs, stride) for stride in (8, 16, 32))

    monkeypatch.setattr(attention, "features_of", brightness)
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 100:] = 255
    (entry,) = with_attention(gallery(1), [picture], {"student": yolo(128)}).pictures
    view: Any = entry.attention[0].views["student"].astype(int).sum(2)
    assert view.shape == (133, 400)
    assert view[:, 380:].min() > 2 * view[:, :280].max()


def test_features_are_given_without_gradient_and_hooks_are_gone() -> None:
    model = yolo(64).model
    levels = features_of(model, torch.rand(2, 3, 64, 64))
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 8), (4, 4), (2, 2)]
    assert not any(level.requires_grad for level in levels)
    assert not any(module._forward_hooks for module in model.modules())
