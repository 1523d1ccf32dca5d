"""``--dry-run``: what a run would be, checked as the run checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkd.config import load_config
from tests.commands.calling import write_config
from tests.engines.conftest import TINY, TINY_RCNN
from tests.engines.segmented import TINY_UNET
from tests.tools.calling import call, refuse


@pytest.mark.parametrize("kind", ["yolo", "torchvision", "unet"])
def test_it_prints_a_configuration_that_reads_back_as_the_run_and_writes_nothing(
    kind: str,
    data: Path,
    discs: Path,
    teacher: Path,
    rcnn_teacher: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    yolo = {"model": "yolov5n.yaml", "width": 0.125, "weights": str(teacher)}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "yolo": ("train_det", {"student": TINY, "distill": {"teacher": yolo}}),
        "torchvision": ("train_det", {"student": TINY_RCNN, "distill": {"teacher": {"weights": str(rcnn_teacher)}}}),
        "unet": ("train_seg", {"student": TINY_UNET, "data": str(discs)}),
    }
    tool, changes = runs[kind]
    config = write_config(tmp_path, data, **changes)
    before = sorted(tmp_path.rglob("*"))
    assert call(tool, "--config", config, "--dry-run", "train.seed=3") == 0
    out, err = capfd.readouterr()
    assert err == ""
    (tmp_path / "printed.yaml").write_text(out)
    assert load_config(tmp_path / "printed.yaml") == load_config(config, ["train.seed=3"])
    assert call(tool, "--config", config, "--dry-run", "--log", "json", "train.seed=3") == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line) == {"event": "config", "config": yaml.safe_load(out)}
    (tmp_path / "printed.yaml").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_it_refuses_what_the_run_would_refuse(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({"data": "none.yaml"}, "Expected a data.yaml"),
        ({"distill": {"teacher": {"weights": "none.pt"}}}, "Expected a weights file"),
        ({"distill": {"teacher": {"weights": str(checkpoint)}}}, "a teacher with a second stage for `dkd`"),
        ({"trainer": {"lr0": 0.1}}, "trainer.lr0: unknown to Lightning's Trainer"),
        ({"loggers": ["comet"]}, "loggers.0: input should be 'tensorboard', 'wandb' or 'mlflow'"),
    ]
    for changes, fault in faults:
        config = write_config(tmp_path, data, **{"student": TINY_RCNN, **changes})
        refuse(capsys, fault, "train_det", "--config", config, "--dry-run")
    assert not (tmp_path / "runs").exists()


def test_a_logger_that_is_not_installed_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detkd.report.loggers.find_spec", lambda _: None)
    config = write_config(tmp_path, data, student=TINY_RCNN, loggers=["mlflow"])
    refuse(capsys, "loggers: mlflow is not installed: pip install mlflow", "train_det", "--config", config)
    assert not (tmp_path / "runs").exists()
