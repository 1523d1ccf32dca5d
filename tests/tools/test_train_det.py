"""The command line that trains, across families: one line for each fault and nothing written, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from detkd.data.detection import DetectionDataset
from tests.engines.conftest import TINY, TINY_RCNN
from tests.tools.calling import call, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"lr": 0.003, "warmup_epochs": 0, "schedule": "constant"}


@pytest.fixture
def write(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a run; `changes` replace whole sections."""

    def write_config(**changes: Any) -> Path:
        tree = {
            "name": "run",
            "output": str(tmp_path / "runs"),
            "data": str(data),
            "student": TINY_RCNN,
            "distill": None,
            "train": {"epochs": 2, "imgsz": 64, "batch": 4},
            "evaluate": ["val"],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**tree, **changes}))
        return tmp_path / "config.yaml"

    return write_config


@pytest.fixture
def coco(data: Path, tmp_path: Path) -> Path:
    """The data set with COCO's annotations."""
    dataset = DetectionDataset.load(data)
    annotations = {split: str(tmp_path / f"{split}.json") for split in ("train", "val")}
    for split, path in annotations.items():
        Path(path).write_text(json.dumps(dataset.coco(split)))
    images = {split: str(data.parent / "images" / split) for split in annotations}
    tree = {"path": "/", "format": "coco", **images, "annotations": annotations, "names": list(dataset.names)}
    (tmp_path / "coco.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "coco.yaml"


def test_each_fault_is_one_line_and_nothing_is_written(
    write: Callable[..., Path],
    coco: Path,
    rcnn_teacher: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file({"a": torch.zeros(1)}, bare)

    def taught(weights: Path, terms: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return {"teacher": {"weights": str(weights)}, **({} if terms is None else {"terms": terms}), **more}

    faults: list[tuple[dict[str, Any], str]] = [
        ({"student": {"model": "fasterrcnn_resnet99_fpn"}}, "student.model: expected one of ['fasterrcnn_mobilenet"),
        ({"student": {"model": "fastercnn_resnet18_fpn"}}, "or the name of a torchvision detector"),
        ({"student": {"model": "fastercnn_resnet18_fpn"}, "optim": QUICK}, "torchvision's begin with fasterrcnn_"),
        ({"student": {"model": "retinanet_resnet50_fpn", "width": 0.5}}, "student.width: retinanet_resnet50_fpn has one"),
        ({"student": TINY, "optim": QUICK}, "expected `optim` to be left out for a YOLO student"),
        ({"student": TINY, "data": str(coco)}, "expected `format: yolo` for a YOLO student"),
        ({"student": {**TINY, "proposals": TINY_RCNN["proposals"]}}, "student: expected a model of family yolo"),
        ({"trainer": {"lr0": 0.1}}, "trainer.lr0: unknown to Lightning's Trainer"),
        ({"trainer": {"precision": "8"}}, "trainer, train.device: expected what Lightning's Trainer takes"),
        ({"augment": [{"HorizontalFlop": {}}]}, "HorizontalFlop"),
        ({"distill": taught(bare)}, "says its architecture"),
        ({"distill": taught(tmp_path / "none.safetensors")}, "Expected a weights file"),
        ({"distill": taught(checkpoint)}, "a teacher with a second stage for `dkd`"),  # the default terms
        ({"distill": taught(rcnn_teacher, {"detection_label": {}})}, "`region_label` (from any)"),
        ({"distill": taught(rcnn_teacher, {"cross_kd": {}})}, "Leave `cross_kd` out"),
        ({"distill": taught(rcnn_teacher, {"mask_kd": {}})}, "Leave `mask_kd` out"),
        ({"distill": taught(checkpoint, {"pkd": {}}, inherit=True)}, "a teacher of the student's family to inherit from"),
        ({"student": TINY, "distill": taught(rcnn_teacher)}, "`detection_label`) instead"),
        ({"student": TINY, "distill": taught(rcnn_teacher, {"dkd": {}})}, "`detection_label` (from any)"),
    ]
    for changes, fault in faults:
        refuse(capsys, fault, "train_det", "--config", write(**changes))
        assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_not_overwritten_and_a_torchvision_student_learns_from_coco_annotations(
    write: Callable[..., Path], coco: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(
        data=str(coco),
        train={"epochs": 1, "imgsz": 64, "batch": 4},
        distill={"teacher": {"weights": str(checkpoint)}, "terms": {"pkd": {}, "region_label": {}}},
    )
    assert call("train_det", "--config", config) == 0
    results = json.loads((tmp_path / "runs" / "run" / "results.json").read_text())
    assert results["data"]["images"] == {"train": 4, "val": 4}
    capsys.readouterr()
    assert call("train_det", "--config", config) == 2
    assert "holds a finished one" in capsys.readouterr().err


def launch(config: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The tool under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *torchrun, "tools/train_det.py", "--config", str(config), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_two_processes_make_one_run_together(write: Callable[..., Path], rcnn_teacher: Path, tmp_path: Path) -> None:
    # What a picture looks like, and so what pkd is of it, depends on no process; regions are drawn by each anew.
    config = write(
        optim={**QUICK, "lr": 1e-9},
        distill={"teacher": {"weights": str(rcnn_teacher)}, "terms": {"pkd": {}, "dkd": {}}},
    )
    done = launch(config, 2, "trainer={strategy: ddp, devices: 2}")
    assert done.returncode == 0, done.stderr[-3000:]
    for line in (
        "student: from scratch",
        "teacher: all tensors",
        "run: epoch 1/2",
        "run: epoch 2/2",
        "Metrics on val",
    ):
        assert done.stdout.count(line) == 1, done.stdout
    folder = tmp_path / "runs" / "run"
    together = json.loads((folder / "results.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "config.yaml", "curves.json", "detections.png", "lightning", "pictures", "report.html", "results.json",
        "student.safetensors", "training.png", "weights.json",
    ]  # fmt: skip
    assert call("train_det", "--config", config, "name=one") == 0
    alone = json.loads((tmp_path / "runs" / "one" / "results.json").read_text())
    for row, other in zip(together["history"], alone["history"], strict=True):
        assert row["train/loss_objectness"] == pytest.approx(other["train/loss_objectness"], rel=0.05)
        assert row["train/pkd"] == pytest.approx(other["train/pkd"], rel=0.1)  # batches of half the size are standardised
    assert load_file(folder / "student.safetensors").keys() == load_file(tmp_path / "runs/one/student.safetensors").keys()
