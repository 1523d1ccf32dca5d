"""Teachers read from a cache by and of a Faster R-CNN: the same training as beside the live teacher, across families."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.engines.caching import cache_teachers
from detkd.engines.run import run_config
from detkd.errors import CacheError
from detkd.model_config import ModelConfig
from detkd.models.torchvision import load_model, save_model
from detkd.models.ultralytics import build_yolo
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.store import Index
from tests.engines.conftest import NAMES, configure, configure_rcnn, settle
from tests.engines.runs import farthest, train

if TYPE_CHECKING:
    from detkd.config import DetectionConfig

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")

REGIONS = {"pkd": {}, "dkd": {}, "bounded_box": {}, "region_label": {}}
# Small steps: what is drawn and matched turns on the last digit of a score.
SLOW = {"name": "sgd", "lr": 1e-5, "warmup_epochs": 0, "schedule": "constant"}
MOVING = [{"HorizontalFlip": {"p": 0.5}}, {"Affine": {"translate_percent": [-0.2, 0.2], "p": 1.0}}]


@pytest.fixture(scope="module")
def yolo_teacher(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A YOLO that tells pictures apart."""
    spec = {"model": "yolov5n.yaml", "width": 0.125}
    model, _ = build_yolo(ModelConfig(**spec, weights=teacher), NAMES, role="teacher")
    settle(model)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(model.state_dict(), path)
    return {**spec, "weights": str(path)}


def student_of_torchvision(data: Path, teacher: dict[str, Any], terms: dict[str, Any], **changes: Any) -> DetectionConfig:
    distill = {"teacher": {"views": 2, **teacher}, "terms": terms}
    return configure_rcnn(data, **{"distill": distill, "optim": SLOW, "augment": MOVING, **changes})


def student_of_yolo(data: Path, teacher: dict[str, Any], terms: dict[str, Any], **changes: Any) -> DetectionConfig:
    trainer = {"optimizer": "SGD", "lr0": 1e-5, "warmup_epochs": 0, "mosaic": 1.0, "close_mosaic": 1, "verbose": False}
    distill = {"teacher": {"views": 2, **teacher}, "terms": terms}
    train = {"epochs": 2, "imgsz": 64, "batch": 2}
    return configure(data, **{"distill": distill, "trainer": trainer, "train": train, **changes})


@pytest.mark.parametrize(
    "case", ["a YOLO to a Faster R-CNN", "a Faster R-CNN to a Faster R-CNN", "a Faster R-CNN to a YOLO"]
)
def test_training_from_a_cache_is_training_beside_the_teacher(
    data: Path,
    yolo_teacher: dict[str, Any],
    rcnn_teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    build, spec, terms = {
        "a YOLO to a Faster R-CNN": (student_of_torchvision, yolo_teacher, {"pkd": {}, "region_label": {}}),
        "a Faster R-CNN to a Faster R-CNN": (student_of_torchvision, {"weights": str(rcnn_teacher)}, REGIONS),
        "a Faster R-CNN to a YOLO": (
            student_of_yolo,
            {"weights": str(rcnn_teacher)},
            {"pkd": {}, "detection_label": {}},
        ),
    }[case]
    config = build(data, {**spec, "cache": str(tmp_path / "cache")}, terms)
    cache_teachers(config)
    kept = Index.load(tmp_path / "cache").fields
    assert any(name.startswith("features.") for name in kept)
    beside = train(config, tmp_path / "live", live=True)

    live, cached = [], []
    run, read = LiveTeacher.run, CachedTeacher.run
    monkeypatch.setattr(LiveTeacher, "run", lambda self, images, views=None: live.append(len(images)) or run(self, images))

    def watch(self: CachedTeacher, images: torch.Tensor, views: Any = None) -> Any:
        cached.extend(views or ())
        return read(self, images, views)

    monkeypatch.setattr(CachedTeacher, "run", watch)
    from_cache = train(config, tmp_path / "cached", live=False)
    stages = {view.stage for view in cached}
    assert sum(live) == 1 + 4 * len(stages) + 1  # the probe, a sample of each stage, the trial; never in training
    assert sorted(view.image for view in cached[:4]) == [0, 1, 2, 3]
    assert {f"train/{name}" for name in terms} <= set(beside[0])
    assert farthest(beside, from_cache) < 5e-3

    def mix_up(self: CachedTeacher, images: torch.Tensor, views: Any = None) -> Any:
        return read(self, images, views and [view._replace(image=3 - view.image) for view in views])

    monkeypatch.setattr(CachedTeacher, "run", mix_up)
    assert farthest(beside, train(config, tmp_path / "mixed up", live=False)) > 5e-3


def test_a_stale_cache_is_refused_before_anything_is_written(data: Path, rcnn_teacher: Path, tmp_path: Path) -> None:
    teacher = {"weights": str(rcnn_teacher), "cache": str(tmp_path / "cache")}

    def config(teacher: dict[str, Any] = teacher, terms: Any = None, **changes: Any) -> DetectionConfig:
        return student_of_torchvision(data, teacher, terms or {"dkd": {}}, output=str(tmp_path / "runs"), **changes)

    cache_teachers(config())
    other = load_model(rcnn_teacher)
    with torch.no_grad():
        other.roi_heads.box_predictor.cls_score.bias.add_(1e-3)
    save_model(other, tmp_path / "other.safetensors")
    for changes, reason in (
        ({"augment": []}, r"transform\.augment is .* there and \[\] here"),
        ({"train": {"epochs": 2, "imgsz": 96, "batch": 2}}, r"input\.imgsz is 64 there and 96 here"),
        ({"teacher": {**teacher, "weights": str(tmp_path / "other.safetensors")}}, r"teacher\.weights is '\w+' there"),
        (
            {"teacher": {**teacher, "views": 3}, "train": {"epochs": 3, "imgsz": 64, "batch": 2}},
            "1 of 3 shards are missing",
        ),
    ):
        with pytest.raises(CacheError, match=reason) as error:
            run_config(config(**changes))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "runs").exists()
    # The second stage needs all levels but no more: every term of regions, and of features, reads this cache.
    run_config(config(terms=REGIONS, train={"epochs": 1, "imgsz": 64, "batch": 4}, teacher={**teacher, "views": 2}))
