"""The one-line trainer inside ultralytics' own API, and what must not break there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detkd.adapters.ultralytics import import_ultralytics, load_yolo
from detkd.ultralytics import distill_trainer
from tests.adapters.families import build

TERMS = {"bckd": {}, "pkd": {}}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(name: str, trainer: Any, data: Path, folder: Path, **arguments: Any) -> Any:
    """Train a tiny student of a family through ultralytics' own API; returns the trainer object."""
    yolo = import_ultralytics().YOLO(f"{name}.yaml", verbose=False)
    yolo.model.yaml = build(name).yaml  # at the tests' tiny width
    small = {"epochs": 1, "imgsz": 64, "batch": 4, "nbs": 4, "workers": 0, "device": "cpu", "amp": False}
    steady = {"optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0}
    quiet = {"plots": False, "verbose": False, "project": str(folder), "name": "run", "exist_ok": True}
    settings = {**small, **steady, **quiet, **arguments}
    yolo.train(trainer=trainer, data=str(data), **settings)
    return yolo.trainer


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return load_yolo(path).model.state_dict()


def test_one_line_distils(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    trainer = train("yolo11n", distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path, epochs=2)
    assert {"bckd", "pkd"} <= set(trainer.loss_names)
    assert set(trainer.weight_log.epochs[1]) == {"bckd", "pkd"}
    assert all(weight > 0 for weight in trainer.weight_log.epochs[1].values())
    kept = parameters(trainer.best)
    assert not any("aligner" in name or "teacher" in name for name in kept)
    plain = train("yolo11n", None, resolved, tmp_path / "plain", epochs=2)
    assert kept.keys() == parameters(plain.best).keys()
    assert any(not torch.equal(value, parameters(plain.best)[name]) for name, value in kept.items())
