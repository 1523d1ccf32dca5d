"""Teachers read from a cache: the same training as beside the live teacher, and no other cache than the right one."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from detkd.adapters.ultralytics import import_ultralytics
from detkd.data.detection import DetectionDataset
from detkd.engines import ultralytics as engine
from detkd.engines.caching import cache_teachers
from detkd.engines.distillation import build_distiller
from detkd.engines.run import run_config
from detkd.errors import CacheError, ConfigError
from detkd.model_config import ModelConfig
from detkd.models.ultralytics import build_yolo
from detkd.report.console import TrainingProgress
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.live import LiveTeacher
from detkd.teachers.store import File, Index, Shard, View, describe
from detkd.ultralytics import cache_teacher, distill_trainer
from tests.adapters.families import build
from tests.engines.conftest import NAMES, CutError, configure, settle

if TYPE_CHECKING:
    from detkd.config import DetectionConfig
    from detkd.types import DetectorOutputs

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")

TERMS = {"bckd": {}, "ld": {}, "pkd": {}, "cross_kd": {}, "hard_label": {}, "score_l2": {}}
MIXED = {"optimizer": "SGD", "lr0": 1e-4, "warmup_epochs": 0, "mosaic": 1.0, "mixup": 0.3, "close_mosaic": 2}


@pytest.fixture(scope="module")
def teacher(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tells pictures apart."""
    model, _ = build_yolo(ModelConfig(model="yolov5n.yaml", width=0.125, weights=teacher), NAMES, role="teacher")
    settle(model)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(model.state_dict(), path)
    return path


def cached(data: Path, teacher: Path, cache: Path, /, **changes: Any) -> DetectionConfig:
    spec = {"model": "yolov5n.yaml", "width": 0.125, "weights": str(teacher), "cache": str(cache), "views": 2}
    changes = {"output": str(cache.parent / "runs"), **changes}
    sections: dict[str, Any] = {
        "distill": {"teacher": {**spec, **changes.pop("teacher", {})}, "terms": changes.pop("terms", TERMS)},
        "train": {"epochs": 5, "imgsz": 64, "batch": 2, **changes.pop("train", {})},
        "trainer": {**MIXED, "verbose": False, **changes.pop("trainer", {})},
    }
    return configure(data, **sections, **changes)


@pytest.fixture(scope="module")
def cache(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "cache"
    cache_teachers(cached(data, teacher, folder))
    return folder


@pytest.fixture
def own(cache: Path, tmp_path: Path) -> Path:
    """A copy of the cache to damage."""
    return Path(shutil.copytree(cache, tmp_path / "cache"))


def train(
    config: DetectionConfig, folder: Path, *, live: bool
) -> tuple[list[dict[str, float]], torch.Tensor, torch.Tensor]:
    """The losses of each epoch, and the student's parameters before and after."""
    torch.manual_seed(0)
    student, _ = build_yolo(config.student, NAMES, role="student")
    teacher, _ = build_yolo(config.distill.teacher, NAMES, role="teacher")
    dataset = DetectionDataset.load(config.data)
    pictures = None if live else engine.training_views(config, dataset, student)
    distiller = build_distiller(student, [teacher], config.distill, config.train.imgsz, pictures)
    dataset.write_yaml(folder / "data.yaml")
    arguments = engine.trainer_arguments(config, folder / "data.yaml", folder)
    start = torch.nn.utils.parameters_to_vector(student.parameters()).detach().clone()
    result = engine.run_trainer(student, distiller, arguments, config.distill.views)
    return result.history, start, torch.nn.utils.parameters_to_vector(student.parameters()).detach()


def test_training_from_a_cache_is_training_beside_the_teacher(
    data: Path, teacher: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer, and the task's own assignment of labels to anchors jumps at the least difference.
    config = cached(data, teacher, cache, train={"epochs": 2}, trainer={"close_mosaic": 1})
    beside, start, *students = train(config, tmp_path / "live", live=True)
    calls = []
    run = LiveTeacher.run
    monkeypatch.setattr(LiveTeacher, "run", lambda self, images, views=None: calls.append(len(images)) or run(self, images))
    from_cache, _, student = train(config, tmp_path / "cached", live=False)
    students.append(student)
    assert sum(calls) == 1 + 4 + 4 + 1  # the probe, a sample of each stage, the trial; never in training
    for row, other in zip(beside, from_cache, strict=True):
        for term in (*TERMS, "box_loss", "cls_loss", "dfl_loss"):
            assert other[f"train/{term}"] == pytest.approx(row[f"train/{term}"], rel=5e-3), (row["epoch"], term)
    way, difference = students[0] - start, students[1] - students[0]
    assert difference.norm() < 0.1 * way.norm()


def test_a_resumed_run_goes_on_with_the_views_of_its_epochs(
    data: Path, teacher: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[View] = []
    run = CachedTeacher.run

    def watch(self: CachedTeacher, images: torch.Tensor, views: Any = None) -> DetectorOutputs:
        seen.extend(views or ())
        return run(self, images, views)

    def cut(_: object, done: int, values: object) -> None:
        if done == 4:
            raise CutError

    monkeypatch.setattr(CachedTeacher, "run", watch)
    changes = {"terms": {"bckd": {}}, "output": str(tmp_path)}
    config = cached(data, teacher, cache, **changes)
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(TrainingProgress, "epoch", cut)
        run_config(config)
    run_config(config, resume=True)
    epochs = [{(view.stage, view.view) for view in seen[start : start + 4]} for start in range(0, len(seen), 4)]
    assert epochs == [{("full", 0)}, {("full", 1)}, {("full", 0)}, {("closed", 0)}, {("closed", 1)}]


def test_the_size_that_was_announced_is_the_size(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache"
    cache_teachers(cached(data, teacher, folder))
    said = capsys.readouterr().out
    line = re.search(r"4 images x \(2 full \+ 2 closed\) views at .*features.*\), 4 shards of (.*) KiB to make", said)
    assert line is not None, said
    real = sum(path.stat().st_size for path in folder.iterdir())
    assert float(line.group(1)) * 2**10 == pytest.approx(real, rel=0.1)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    cache_teachers(cached(data, teacher, folder))
    assert "0 shards of 0 B to make" in capsys.readouterr().out
    cache_teachers(cached(data, teacher, folder, teacher={"views": 3}))
    assert "1 shards of" in capsys.readouterr().out  # only the first stage has as many epochs
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


STALE: dict[str, tuple[dict[str, Any], str]] = {
    "transform": ({"trainer": {"mosaic": 0.5}}, "transform.mosaic is 1.0 there and 0.5 here"),
    "input": ({"train": {"imgsz": 96}}, "input.imgsz is 64 there and 96 here"),
    "scale": ({"teacher": {"scale": 2.0}}, "teacher.scale is 1.0 there and 2.0 here"),
    "anchors": ({"teacher": {"anchors": 20}}, "kept.anchors is 512 there and 20 here"),
    "views": ({"teacher": {"views": 3}}, "1 of 5 shards are missing, the first full-002-00000"),
    "terms": ({"terms": {"bckd": {}, "mgd": {}}}, ""),
}


@pytest.mark.parametrize("change", STALE)
def test_a_cache_of_another_run_is_refused_before_anything_is_written(
    data: Path, teacher: Path, cache: Path, change: str
) -> None:
    changes, reason = STALE[change]
    config = cached(data, teacher, cache, **changes)
    dataset = DetectionDataset.load(data)
    student, _ = build_yolo(config.student, NAMES, role="student")
    model, _ = build_yolo(config.distill.teacher, NAMES, role="teacher")
    pictures = engine.training_views(config, dataset, student)
    if not reason:  # all that these terms need is there
        build_distiller(student, [model], config.distill, config.train.imgsz, pictures)
        return
    with pytest.raises(CacheError) as error:
        build_distiller(student, [model], config.distill, config.train.imgsz, pictures)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_other_weights_and_other_data_are_refused(data: Path, teacher: Path, own: Path, tmp_path: Path) -> None:
    other = tmp_path / "teacher.pt"
    state = torch.load(teacher, weights_only=True)
    state["model.0.conv.weight"] += 1e-3
    torch.save(state, other)
    copy = Path(shutil.copytree(data.parent, tmp_path / "data"))
    (copy / "labels/train/0.txt").write_text("1 0.25 0.25 0.375 0.375\n")
    moved = Path(shutil.copytree(data.parent, tmp_path / "moved"))
    for config, reason in (
        (cached(data, other, own), r"teacher\.weights is '\w+' there and '\w+' here"),
        (cached(copy / "data.yaml", teacher, own), r"data\.labels is '\w+' there"),
    ):
        with pytest.raises(CacheError, match=reason):
            run_config(config)
        assert not (config.output / config.name).exists()
    run_config(cached(moved / "data.yaml", teacher, own, train={"epochs": 2}, trainer={"close_mosaic": 1}))


def test_a_cache_that_lacks_what_a_term_needs_is_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    cache_teachers(cached(data, teacher, tmp_path / "cache", terms={"bckd": {}}))
    with pytest.raises(CacheError, match=r"it lacks \['features.0', 'features.1', 'features.2'\]"):
        run_config(cached(data, teacher, tmp_path / "cache", terms={"bckd": {}, "pkd": {}}))
    with pytest.raises(CacheError, match="to hold the fields"):
        cache_teachers(cached(data, teacher, tmp_path / "cache", terms={"bckd": {}, "pkd": {}}))


def test_a_wrong_shard_is_found_by_comparison_with_the_teacher(data: Path, teacher: Path, own: Path) -> None:
    """Planted so well that size, checksum and metadata are right."""
    index = Index.load(own)
    right, wrong = Shard("full", 0, 0), Shard("full", 1, 0)
    tensors = load_file(own / wrong.name)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, own / right.name, metadata=describe(index, right))
    file = File.of(own / right.name)
    tree = json.loads((own / "index.json").read_text())
    tree["shards"][right.name] = dataclasses.asdict(file)
    (own / "index.json").write_text(json.dumps(tree))
    with pytest.raises(CacheError, match=r"of image 1, view 0 of stage full, differs by .* where .* is rounding"):
        run_config(cached(data, teacher, own))


def test_what_cannot_be_replayed_is_refused(data: Path, teacher: Path, cache: Path) -> None:
    for use in (run_config, cache_teachers):
        with pytest.raises(ConfigError, match=r"trainer\.multi_scale: expected to be off with a cached teacher"):
            use(cached(data, teacher, cache, trainer={"multi_scale": 0.5}))
    with pytest.raises(ConfigError, match=r"distill\.teacher\.cache: expected the folder to make"):
        cache_teachers(configure(data, distill=None))


def test_segmenters_learn_masks_from_a_cache(tmp_path: Path) -> None:
    data = tmp_path / "data"
    generator = torch.Generator().manual_seed(0)
    for kind in ("images", "labels"):
        (data / kind).mkdir(parents=True)
    for index in range(4):
        pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=generator).numpy()
        Image.fromarray(pixels).save(data / "images" / f"{index}.png")
        (data / "labels" / f"{index}.txt").write_text("0 0.1 0.1 0.5 0.1 0.3 0.5\n1 0.5 0.5 0.9 0.5 0.7 0.9\n")
    content = {"path": str(data), "train": "images", "val": "images", "names": list(NAMES)}
    (data / "data.yaml").write_text(yaml.safe_dump(content))
    torch.save({"model": build("yolov8n-seg"), "train_args": {"task": "segment"}}, tmp_path / "teacher.pt")

    teacher = {"weights": str(tmp_path / "teacher.pt"), "cache": str(tmp_path / "cache"), "views": 2, "anchors": 40}
    terms = {"mask_kd": {}, "bckd": {}}
    arguments = {"data": str(data / "data.yaml"), "epochs": 2, "imgsz": 64, "batch": 4, "close_mosaic": 1, "device": "cpu"}
    arguments |= {"optimizer": "AdamW", "lr0": 0.002, "amp": False, "plots": False, "verbose": False}
    yolo = import_ultralytics().YOLO("yolo11n-seg.yaml", verbose=False)
    yolo.model.yaml = build("yolo11n-seg").yaml  # at the tests' tiny width
    cache_teacher(yolo, teacher, terms=terms, copy_paste=0.5, **arguments)
    fields = Index.load(tmp_path / "cache").fields
    assert fields["prototypes"].shape == (32, 16, 16)
    assert fields["heads.0.coefficients"].shape == (32, 40)
    trainer = distill_trainer(teacher, terms=terms, task="segment")
    with pytest.raises(CacheError, match=r"transform\.copy_paste is 0\.5 there and 0\.0 here"):
        yolo.train(trainer=trainer, project=str(tmp_path), name="stale", **arguments)
    yolo.train(trainer=trainer, project=str(tmp_path), name="run", copy_paste=0.5, **arguments)
    assert all(weight > 0 for epoch in yolo.trainer.weight_log.epochs for weight in epoch.values())
