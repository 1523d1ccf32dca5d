"""Teachers of a U-Net read from a cache: the same training as beside the live one, a U-Net or a YOLO that draws masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.engines.caching import cache_teachers
from detkd.engines.run import run_config
from detkd.errors import CacheError
from detkd.models.unet import load_model, save_model
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.store import Index
from tests.engines.runs import farthest, train
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from detkd.config import RunConfig

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")

# Small steps: what a detector finds does not change, but what a student says of it does.
SLOW = {"name": "sgd", "lr": 1e-4, "warmup_epochs": 0, "schedule": "constant"}
MOVING = [{"HorizontalFlip": {"p": 0.5}}, {"Affine": {"translate_percent": [-0.2, 0.2], "fill": 114, "p": 1.0}}]
TERMS = {"pixel_kl": {}, "pkd": {}}


def configure(data: Path, weights: Path, cache: Path, **changes: Any) -> RunConfig:
    teacher = {"weights": str(weights), "cache": str(cache), "views": 2, **changes.pop("teacher", {})}
    distill = {"teacher": teacher, "terms": changes.pop("terms", TERMS)}
    return configure_unet(data, **{"distill": distill, "optim": SLOW, "augment": MOVING, **changes})


# A detector's thresholds turn on the last digit of a score or of an overlap.
@pytest.mark.parametrize(("kind", "tolerance"), [("shapes_teacher", 1e-4), ("yolo_segmenter", 1e-2)])
def test_training_from_a_cache_is_training_beside_the_teacher(
    shapes: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    tolerance: float,
) -> None:
    config = configure(shapes, request.getfixturevalue(kind), tmp_path / "cache")
    cache_teachers(config)
    kept = Index.load(tmp_path / "cache").fields
    assert any(name.startswith("features.") for name in kept)
    beside = train(config, tmp_path / "live", live=True)
    assert all(row[f"train/{name}"] > 0 for row in beside for name in TERMS)

    live, cached = [], []
    run, read = LiveTeacher.run, CachedTeacher.run
    monkeypatch.setattr(LiveTeacher, "run", lambda self, images, views=None: live.append(len(images)) or run(self, images))

    def watch(self: CachedTeacher, images: torch.Tensor, views: Any = None) -> Any:
        cached.extend(views or ())
        return read(self, images, views)

    monkeypatch.setattr(CachedTeacher, "run", watch)
    from_cache = train(config, tmp_path / "cached", live=False)
    assert sum(live) == 1 + 4 + 1  # the probe, a sample, the trial; never in training
    assert sorted((view.image, view.view) for view in cached) == [(image, view) for image in range(4) for view in range(2)]
    assert farthest(beside, from_cache) < tolerance

    def mix_up(self: CachedTeacher, images: torch.Tensor, views: Any = None) -> Any:
        return read(self, images, views and [view._replace(image=3 - view.image) for view in views])

    monkeypatch.setattr(CachedTeacher, "run", mix_up)
    assert farthest(beside, train(config, tmp_path / "mixed up", live=False)) > 2 * tolerance


def test_half_precision_trains_from_a_cache(shapes: Path, shapes_teacher: Path, tmp_path: Path) -> None:
    config = configure(shapes, shapes_teacher, tmp_path / "cache", trainer={"precision": "bf16-mixed"})
    cache_teachers(config)
    one, other = (train(config, tmp_path / name, live=name == "live") for name in ("live", "cached"))
    assert farthest(one, other) < 5e-2  # the live teacher computes in half precision too


def test_a_stale_cache_is_refused_before_anything_is_written(shapes: Path, shapes_teacher: Path, tmp_path: Path) -> None:
    def config(**changes: Any) -> RunConfig:
        return configure(shapes, shapes_teacher, tmp_path / "cache", output=str(tmp_path / "runs"), **changes)

    cache_teachers(config(terms={"pixel_kl": {}}))
    other = load_model(shapes_teacher)
    with torch.no_grad():
        other.network.segmentation_head.bias.add_(1e-3)
    save_model(other, tmp_path / "other.safetensors")
    pixels = {"terms": {"pixel_kl": {}}}
    for changes, reason in (
        ({**pixels, "augment": []}, r"transform\.augment is .* there and \[\] here"),
        ({**pixels, "segment": {"pictures": "tiles"}}, r"input\.mode is 'fit' there and 'tiles' here"),
        ({**pixels, "train": {"epochs": 2, "imgsz": 96, "batch": 2}}, r"input\.imgsz is 64 there and 96 here"),
        ({**pixels, "teacher": {"weights": str(tmp_path / "other.safetensors")}}, r"teacher\.weights is '\w+' there"),
        ({}, "features"),  # which pkd needs, and pixel_kl does not
    ):
        with pytest.raises(CacheError, match=reason) as error:
            run_config(config(**changes))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "runs").exists()
    run_config(config(**pixels, train={"epochs": 1, "imgsz": 64, "batch": 4}))


def test_a_teacher_is_cached_for_a_run_that_uses_few_labels(shapes: Path, shapes_teacher: Path, tmp_path: Path) -> None:
    half = configure(shapes, shapes_teacher, tmp_path / "cache", segment={"labelled": 0.5})
    cache_teachers(half)
    one, other = (train(half, tmp_path / name, live=name == "live") for name in ("live", "cached"))
    assert farthest(one, other) < 5e-3
    with pytest.raises(CacheError, match=r"data\.labels is"):  # a transform may look at them
        train(configure(shapes, shapes_teacher, tmp_path / "cache"), tmp_path / "all", live=False)
