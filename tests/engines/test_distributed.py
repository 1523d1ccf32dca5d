"""Training on several processes: torchrun with gloo gives what one process gives, live and from a cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detkd.adapters.ultralytics import import_ultralytics
from detkd.ultralytics import cache_teacher
from tests.adapters.families import build
from tests.engines.distributed_main import ARGUMENTS

MIXED = {"epochs": 4, "batch": 4, "nbs": 4, "lr0": 1e-3, "mosaic": 1.0, "fliplr": 0.5, "close_mosaic": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of a student, and of a teacher that tells pictures apart."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    student, teacher = build("yolo11n"), build("yolov8n")
    for branch in teacher.model[-1].cv3:
        branch[-1].bias.data.zero_()  # a teacher without any score would count as one positive however large the batch is
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # without statistics of its activations, one from scratch does not
    teacher.train()(torch.rand(8, 3, 64, 64))
    for name, model in (("student", student), ("teacher", teacher)):
        torch.save({"model": model, "train_args": {"task": "detect", "imgsz": 64}}, folder / f"{name}.pt")
    return folder


@pytest.fixture(scope="module")
def alike(resolved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that are all alike, where neither batch statistics nor normalisers depend on the split."""
    root, folder = Path(yaml.safe_load(resolved.read_text())["path"]), tmp_path_factory.mktemp("alike")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(8):
            shutil.copy(root / "images" / "train" / "0.png", folder / "images" / split / f"{index}.png")
            # As large as an untrained student's boxes, or its targets would sum up to less than the 1 they are clamped to.
            (folder / "labels" / split / f"{index}.txt").write_text("0 0.5 0.5 1 1\n1 0.5 0.5 0.9 0.9")
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "names": ["disc", "square"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


def run(
    models: Path, data: Path, folder: Path, terms: list[str], *, processes: int = 2, **job: Any
) -> list[dict[str, Any]]:
    """Train in processes of their own; returns what each of them ended with."""
    folder.mkdir(exist_ok=True)
    place = {"student": str(models / "student.pt"), "data": str(data), "folder": str(folder), "processes": processes}
    job = {"teacher": str(models / "teacher.pt"), "terms": {term: {} for term in terms}, **place, **job}
    script = [str(Path(__file__).with_name("distributed_main.py")), json.dumps(job)]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *launch, *script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def cached(models: Path, data: Path, folder: Path, terms: list[str], **arguments: Any) -> dict[str, Any]:
    """Make a cache; returns the teacher that reads it."""
    teacher = {"weights": str(models / "teacher.pt"), "cache": str(folder), "views": 2}
    yolo = import_ultralytics().YOLO(str(models / "student.pt"))
    cache_teacher(yolo, teacher, terms={term: {} for term in terms}, data=str(data), **{**ARGUMENTS, **arguments})
    return teacher


def apart(one: dict[str, Any], other: dict[str, Any], models: Path) -> float:
    """Squared distance of two students as a share of the way that one has gone."""
    student = torch.load(models / "student.pt", weights_only=False)["model"]
    start = {name: value.detach().float() for name, value in student.named_parameters()}
    moved = sum((one["student"][name] - value).square().sum() for name, value in start.items())
    distance = sum((one["student"][name] - other["student"][name]).square().sum() for name in start)
    assert moved > 0
    return float(distance / moved)


@pytest.mark.parametrize("source", ["live", pytest.param("cache", marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives(models: Path, alike: Path, tmp_path: Path, source: str) -> None:
    terms = ["bckd", "at"]
    teacher = {"teacher": cached(models, alike, tmp_path / "cache", terms)} if source == "cache" else {}
    (one,), (first, second) = (run(models, alike, tmp_path / str(n), terms, processes=n, **teacher) for n in (1, 2))
    assert first["weights"] == pytest.approx(one["weights"], rel=1e-3)
    assert apart(one, first, models) < 1e-4
    assert apart(first, second, models) == 0


@pytest.mark.slow
def test_two_processes_have_the_same_average_as_their_teacher(models: Path, alike: Path, tmp_path: Path) -> None:
    job: dict[str, Any] = {"teacher": {"ema": 0.5}}
    (one,), (first, second) = (run(models, alike, tmp_path / str(n), ["at"], processes=n, **job) for n in (1, 2))
    assert apart(one, first, models) < 1e-4
    assert apart(first, second, models) == 0
    for name, value in first["averages"][0].items():
        assert torch.equal(value, second["averages"][0][name]), name
        torch.testing.assert_close(value, one["averages"][0][name], rtol=1e-3, atol=1e-4)


def test_two_processes_read_from_a_cache_what_the_teacher_says(models: Path, resolved: Path, tmp_path: Path) -> None:
    """On pictures that differ, and change with every view; each process has half of them."""
    terms = ["bckd", "score_l2"]
    job = {"teacher": cached(models, resolved, tmp_path / "cache", terms, **MIXED), "arguments": MIXED}
    live = run(models, resolved, tmp_path / "live", terms, **job, live=True, cut=2)
    read = run(models, resolved, tmp_path / "read", terms, **job, cut=2)
    resumed = run(models, resolved, tmp_path / "read", terms, **job)
    assert [rank["views"] for rank in live] == [rank["views"] for rank in read]
    assert seen(read) == {0: ("full", 0), 1: ("full", 1)}
    assert seen(resumed) == {2: ("full", 0), 3: ("closed", 0)}
    assert read[0]["weights"] == pytest.approx(live[0]["weights"], rel=1e-2)
    assert apart(live[0], read[0], models) < 1e-2
    for first, second in (live, read, resumed):
        assert first["weights"] == second["weights"]
        assert first["aligners"]
        for name, value in first["aligners"].items():
            assert torch.equal(second["aligners"][name], value), name


def seen(ranks: list[dict[str, Any]]) -> dict[int, tuple[str, int]]:
    """Stage and view of each epoch, of which the processes have seen each picture once."""
    epochs = {}
    for epoch in ranks[0]["views"]:
        views = [view for rank in ranks for view in rank["views"][epoch]]
        ((stage, number),) = {(stage, number) for stage, number, _ in views}
        assert sorted(image for *_, image in views) == [0, 1, 2, 3]
        epochs[epoch] = (stage, number)
    return epochs
