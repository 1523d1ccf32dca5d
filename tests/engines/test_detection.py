"""What a run checks of its models before it trains, and says of them when it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from detkd.engines.run import run_config
from detkd.errors import WeightsError
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model, save_model
from detkd.models.ultralytics import build_yolo
from tests.engines.conftest import configure

if TYPE_CHECKING:
    from pathlib import Path


def test_a_teacher_is_judged_by_the_classes_that_it_shares_whatever_it_calls_them(data: Path, tmp_path: Path) -> None:
    spec = ModelConfig(model="yolov5n.yaml", width=0.125)
    teacher, _ = build_yolo(spec, ("cloud", "square", "circle"), role="teacher")
    for boxes, scores in zip(teacher.model[-1].cv2, teacher.model[-1].cv3, strict=True):
        for convolution in (boxes[-1], scores[-1]):
            torch.nn.init.zeros_(convolution.weight)
        sides = torch.tensor([-50.0, 0.0, 0.0] + 13 * [-50.0])  # one and a half strides to each side, as the discs have
        boxes[-1].bias.data = sides.repeat(4)
        scores[-1].bias.data = torch.tensor([-1.0, 0.0, 1.0])  # circles everywhere
    path = tmp_path / "teacher.pt"
    torch.save({"model": teacher}, path)
    distill = {"teacher": {"weights": str(path), "classes": {"disc": "circle", "square": "square"}}}
    train = {"epochs": 1, "imgsz": 64, "batch": 4}
    folder = run_config(configure(data, output=str(tmp_path), distill=distill, train=train))
    (report,) = json.loads((folder / "results.json").read_text())["teachers"]

    assert report["metrics"]["val"]["per_class"]["disc"] > 0
    assert report["metrics"]["val"]["per_class"]["square"] == 0


@pytest.mark.parametrize("names", [("square", "disc"), ("disc", "square", "cloud")])
def test_a_student_of_another_data_set_is_refused_before_it_learns_wrong_labels(
    data: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    spec = ModelConfig(model="fasterrcnn_mobilenet_v3_small_fpn", width=0.125)
    save_model(build_model(spec, names, role="student", imgsz=64)[0], tmp_path / "other.safetensors")
    student = {"weights": str(tmp_path / "other.safetensors")}
    config = configure(data, output=str(tmp_path), student=student, distill=None, trainer={})
    with pytest.raises(WeightsError, match=r"classes \['disc', 'square'\], but its checkpoint .* `student.model` beside"):
        run_config(config)
    assert not (tmp_path / "run").exists()
