"""The Lightning engine's pictures come back exactly, and a teacher's cache is made from them by the same code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from detkd.config import parse_distillation
from detkd.data.detection import DetectionDataset
from detkd.engines.distillation import cache_source
from detkd.engines.views.lightning import STAGE, PictureViews
from detkd.errors import CacheError
from detkd.lightning_config import DEFAULT_AUGMENT
from detkd.model_config import ModelConfig
from detkd.models.ultralytics import build_yolo
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.making import CacheMaker
from detkd.teachers.store import View
from tests.adapters.families import build
from tests.engines.conftest import NAMES
from tests.engines.lightning.detectors import ENGINE, FeatureDistiller, configure, faster_rcnn


def views_of(data: Path, **changes: Any) -> PictureViews:
    teacher = {"weights": "unused.safetensors", "cache": "unused", "views": 2}
    sections = {"distill": {"teacher": teacher}, "augment": DEFAULT_AUGMENT, **changes}
    found = ENGINE.training_views(configure(data, **sections), DetectionDataset.load(data))
    assert found is not None
    return found


def test_only_a_cached_teacher_asks_for_views(data: Path) -> None:
    assert ENGINE.training_views(configure(data), DetectionDataset.load(data)) is None
    assert views_of(data).counts == {STAGE: 2}
    assert views_of(data, train={"epochs": 1, "imgsz": 64}).counts == {STAGE: 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_views_are_the_pictures_that_the_student_trains_on(data: Path, tmp_path: Path, workers: int) -> None:
    student = faster_rcnn()
    distiller = FeatureDistiller(student, faster_rcnn(12, seed=3))
    teacher = {"weights": "unused.safetensors", "cache": "unused", "views": 2}
    config = configure(
        data,
        distill={"teacher": teacher},
        augment=DEFAULT_AUGMENT,
        loading={"workers": workers},
        train={"epochs": 3, "imgsz": 64, "batch": 2, "seed": 5},
    )
    ENGINE.train(student, distiller, config, DetectionDataset.load(data), tmp_path / "run")
    assert [view.view for view in distiller.views] == [0] * 4 + [1] * 4 + [0] * 4
    assert {view.image for view in distiller.views[:4]} == {0, 1, 2, 3}
    composed = torch.cat(list(views_of(data, loading={"workers": workers}).load(distiller.views, 5)))
    assert torch.equal(torch.stack(distiller.pictures), composed)
    assert len({picture.numpy().tobytes() for picture in composed}) == 8


def test_the_fingerprint_names_what_the_pictures_depend_on(data: Path, tmp_path: Path) -> None:
    first = views_of(data).fingerprint()
    assert views_of(data, train={"imgsz": 64, "seed": 3, "batch": 1, "epochs": 2}).fingerprint() == first
    copy = Path(shutil.copytree(data.parent, tmp_path / "copy")) / "data.yaml"
    assert views_of(copy).fingerprint() == first
    (copy.parent / "labels" / "train" / "0.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert views_of(copy).fingerprint()["data"]["labels"] != first["data"]["labels"]
    Image.new("RGB", (64, 64)).save(copy.parent / "images" / "train" / "1.png")
    assert views_of(copy).fingerprint()["data"]["pictures"] != first["data"]["pictures"]
    assert views_of(data, augment=[]).fingerprint()["transform"] != first["transform"]
    assert views_of(data, train={"imgsz": 96}).fingerprint()["input"] != first["input"]


def test_images_are_read_once_however_many_teachers_ask(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views, read, opened = views_of(data), Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name) or read(self))
    assert views.fingerprint() == views.fingerprint()
    assert sorted(opened) == [f"{index}.png" for index in range(4)]


def test_a_teachers_cache_is_made_and_read(data: Path, tmp_path: Path) -> None:
    student, _ = build_yolo(ModelConfig(model="yolov5n.yaml", width=0.0625), NAMES, role="student")
    config = parse_distillation({"teacher": {"cache": str(tmp_path / "cache"), "views": 2}, "terms": {"pkd": {}}})
    teacher = build("yolo11n", NAMES)

    def source(**changes: Any) -> Any:
        return cache_source(student, teacher, config.all_teachers[0], config, views_of(data, **changes))

    maker = CacheMaker(source(), tmp_path / "cache", batch=2)
    maker.make(lambda shard: None)
    cached = CachedTeacher(source(), tmp_path / "cache")  # compares some views with the live teacher
    chosen = [View(STAGE, 1, 3), View(STAGE, 0, 2)]
    images = next(views_of(data).load(chosen, 2))
    live = next(source().outputs(chosen, 2))
    for one, other in zip(cached.run(images, chosen).features, live.features, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    with pytest.raises(CacheError, match="transform.augment is"):
        CachedTeacher(source(augment=[]), tmp_path / "cache")
