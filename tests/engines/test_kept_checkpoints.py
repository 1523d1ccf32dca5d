"""Runs that go on from the checkpoints that ultralytics' `save_period` keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detkd.adapters.ultralytics import import_ultralytics, load_yolo
from detkd.distiller import Distiller
from detkd.engines.resuming.ultralytics import kept_epochs
from detkd.errors import WeightsError
from detkd.ultralytics import distill_trainer
from tests.engines.conftest import CutError
from tests.engines.test_distill_trainer import TERMS, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_goes_on_from_the_checkpoint_of_any_epoch_that_was_kept(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = distill_trainer(checkpoint, terms=TERMS)
    states: list[dict[str, Any]] = []
    finished = train(kind, resolved, tmp_path, epochs=4, save_period=2)
    weights = tmp_path / "run" / "weights"
    assert kept_epochs(weights) == [0, 2]
    assert sorted(path.name for path in weights.glob("distiller-*")) == [f"distiller-{epoch}.pt" for epoch in (0, 2, 3)]

    saved = torch.load(weights / "distiller-0.pt", weights_only=True)
    load = Distiller.load_state_dict

    def watch(self: Distiller, state: dict[str, Any]) -> object:
        states.append({name: value.clone() for name, value in state.items()})
        return load(self, state)

    monkeypatch.setattr(Distiller, "load_state_dict", watch)
    again = import_ultralytics().YOLO(str(weights / "epoch0.pt"))
    begun: list[int] = []
    again.add_callback("on_train_epoch_start", lambda trainer: begun.append(trainer.epoch))
    again.train(resume=True, trainer=kind)
    assert begun == [1, 2, 3]
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0].strip() for row in rows] == ["1", "2", "3", "4"]
    assert all(torch.equal(states[0][name], value) for name, value in saved["distiller"].items())
    log = again.trainer.weight_log.epochs
    assert len(log) == 4
    assert log[0] == saved["weights"][0] == finished.weight_log.epochs[0]


def test_a_checkpoint_whose_aligners_are_gone_says_what_to_resume_from(
    resolved: Path, checkpoint: Path, tmp_path: Path
) -> None:
    kind = distill_trainer(checkpoint, terms=TERMS)
    train(kind, resolved, tmp_path, epochs=2, save_period=1)
    weights = tmp_path / "run" / "weights"
    (weights / "distiller-0.pt").unlink()
    again = import_ultralytics().YOLO(str(weights / "epoch0.pt"))
    with pytest.raises(WeightsError, match=r"distiller-0\.pt.* no such file\. Resume from last\.pt, or") as error:
        again.train(resume=True, trainer=kind)
    assert "\n" not in str(error.value)


def test_a_kill_in_the_middle_of_a_save_leaves_no_half_of_a_kept_checkpoint(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, copy = Path.write_bytes, shutil.copyfile

    def write_half(self: Path, content: bytes) -> int:
        if "epoch" in self.name:
            write(self, content[: len(content) // 2])
            raise CutError
        return write(self, content)

    def copy_half(source: Path, target: Path) -> object:
        return write_half(target, source.read_bytes()) if "epoch" in target.name else copy(source, target)

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Path, "write_bytes", write_half)
        patch.setattr(shutil, "copyfile", copy_half)
        train(distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path, epochs=2, save_period=1)
    weights = tmp_path / "run" / "weights"
    assert not list(weights.glob("*epoch*"))
    assert load_yolo(weights / "last.pt").ckpt["epoch"] == 0
