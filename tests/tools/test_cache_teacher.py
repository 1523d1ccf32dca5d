"""The command line that makes caches: what it prints, and one line for each fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.engines.conftest import TINY, TINY_RCNN
from tests.tools.calling import call, refuse

TEACHER = {"model": "yolov5n.yaml", "width": 0.125, "views": 2}


@pytest.fixture
def config(data: Path, teacher: Path, tmp_path: Path) -> Path:
    tree = {
        "name": "run",
        "data": str(data),
        "student": TINY,
        "distill": {"teacher": {**TEACHER, "weights": str(teacher), "cache": str(tmp_path / "cache")}},
        "train": {"epochs": 3, "imgsz": 64, "batch": 4},
        "trainer": {"close_mosaic": 1},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_it_says_what_it_will_write_and_writes_it(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("cache_teacher", "--config", config) == 0
    lines = capsys.readouterr().out.splitlines()
    announced = next(number for number, line in enumerate(lines) if "4 images x (2 full + 1 closed) views" in line)
    assert lines[announced + 1].startswith("full-000-00000.safetensors: finished")
    assert lines[-1] == str(tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_a_faster_rcnn_trains_from_the_cache_of_another(
    data: Path, rcnn_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {"weights": str(rcnn_teacher), "cache": str(tmp_path / "cache"), "views": 2}
    tree = {
        "name": "run",
        "output": str(tmp_path / "runs"),
        "data": str(data),
        "student": TINY_RCNN,
        "distill": {"teacher": teacher},  # the default terms, which need its second stage
        "train": {"epochs": 2, "imgsz": 64, "batch": 4},
        "evaluate": ["val"],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    given = ["--config", tmp_path / "config.yaml"]
    assert call("train_det", *given) == 2
    assert "Make it with detkd cache-teacher" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert call("cache_teacher", *given) == 0
    assert "4 images x (2 full) views" in capsys.readouterr().out
    assert call("train_det", *given) == 0
    assert "run: epoch 2/2" in capsys.readouterr().out
    assert call("train_det", *given, "name=stale", "augment=[]") == 2
    assert "transform.augment is" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "stale").exists()


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("distill.teacher.cache=null", "distill.teacher.cache: expected the folder to make"),
        ("distill.teacher.views=0", "distill.teacher.views: input should be greater than or equal to 1"),
        ("trainer.multi_scale=0.5", "trainer.multi_scale: expected to be off"),
        ("trainer.time=0.5", "trainer.time: expected to be off"),
        ("distill.teacher.weights=none.pt", "Expected a weights file"),
        ("data=none.yaml", "Expected a data.yaml"),
        ("distill.teacher.cache=DATA/below", "to be a folder that can be written"),
    ],
)
def test_each_fault_is_one_line_and_leaves_nothing(
    config: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    override: str,
    fault: str,
) -> None:
    refuse(capsys, fault, "cache_teacher", "--config", config, override.replace("DATA", str(data)))
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_refused_before_anything_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    assert call("cache_teacher", "--config", config) == 2
    assert "GiB free for the teacher cache" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
