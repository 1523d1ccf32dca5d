"""Runs whose terms' weights follow the student: by its distance from the teacher, or by samples that are held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import detkd.distances
from detkd.config import parse_config
from detkd.engines.run import run_config
from detkd.errors import ConfigError
from tests.engines.classes import configure_classes, write_pictures
from tests.engines.conftest import CutError, configure, configure_rcnn
from tests.engines.runs import checkpoint_of, last, results, same
from tests.engines.segmented import configure_unet

pytestmark = pytest.mark.usefixtures("one_thread")
FOLLOWING = {"soft_kl": {"schedule": {"distance": 1.0}}, "at": {}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 14, "test": 4})


@pytest.fixture(scope="module")
def teacher(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    config = configure_classes(pictures, student={"model": "resnet18", "width": 0.125}, output=tmp_path_factory.mktemp("t"))
    return run_config(config) / "student.safetensors"


def cut_after_one_epoch(config: Any) -> Path:
    """The same run, killed behind its first epoch and resumed."""
    from detkd.engines.lightning.callbacks import Watching

    original = Watching.on_train_epoch_end

    def cut(self: Any, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        raise CutError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Watching, "on_train_epoch_end", cut)
        run_config(config)
    return run_config(config, resume=True)


@pytest.mark.parametrize("balance", ["meta", "gradient_ratio"])
def test_weights_that_follow_the_student_survive_a_kill(
    pictures: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balance: str
) -> None:
    monkeypatch.setattr(detkd.distances, "START", 3)
    distill = {"teacher": {"weights": str(teacher)}, "terms": FOLLOWING, "balance": balance, "held_out": 0.3}
    changes: dict[str, Any] = {"distill": distill, "train": {"epochs": 3, "imgsz": 32, "batch": 4}}
    whole = run_config(configure_classes(pictures, output=tmp_path / "whole", **changes))
    resumed = cut_after_one_epoch(configure_classes(pictures, output=tmp_path / "cut", **changes))
    assert same(last(whole), last(resumed))
    assert results(whole)["distill_weights"] == results(resumed)["distill_weights"]
    assert all(weight > 0 for epoch in results(whole)["distill_weights"] for weight in epoch.values())
    first, latest, count = checkpoint_of(whole)["distiller"]["distances.averages"][:, 0].tolist()
    assert 0 < latest < first  # the student has come nearer
    assert count == 30


def test_a_schedule_by_distance_lowers_what_the_student_has_learnt(
    pictures: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detkd.distances, "START", 3)
    weights = []
    for power in (0.0, 2.0):
        distill = {
            "teacher": {"weights": str(teacher)},
            "terms": {"soft_kl": {"weight": 1.0, "schedule": {"distance": power}}},
            "balance": "none",
        }
        changes: dict[str, Any] = {"distill": distill, "train": {"epochs": 4, "imgsz": 32, "batch": 4}}
        folder = run_config(configure_classes(pictures, output=tmp_path, name=f"power-{power:g}", **changes))
        weights.append([row["soft_kl"] for row in results(folder)["distill_weights"]])
    assert weights[0] == [1.0] * 4
    assert 1.0 >= weights[1][0] > weights[1][-1] > 0


def test_detectors_and_segmenters_look_ahead_too(
    data: Path, rcnn_teacher: Path, discs: Path, unet_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detkd.engines.lightning.module import StudentModule

    look, seen = StudentModule._held_out_loss, []

    def watched(self: StudentModule) -> torch.Tensor:
        norms = [module for module in self.student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
        loss = look(self)
        assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
        assert {norm.momentum for norm in norms} <= {0.1, 0.01}
        seen.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(StudentModule, "_held_out_loss", watched)
    for config in (
        configure_rcnn(data, output=tmp_path, name="rcnn", distill=ahead(rcnn_teacher, {"pkd": {}, "dkd": {}})),
        configure_unet(discs, output=tmp_path, name="unet", distill=ahead(unet_teacher, {"pixel_kl": {}, "pkd": {}})),
    ):
        state = checkpoint_of(run_config(config))["distiller"]
        assert state["balance.gates"].shape == (2,)
        assert seen.pop() > 0
        seen.clear()
        assert all(weight > 0 for weight in results(tmp_path / config.name)["distill_weights"][0].values())


def ahead(teacher: Path, terms: dict[str, Any]) -> dict[str, Any]:
    return {"teacher": {"weights": str(teacher)}, "terms": terms, "balance": "meta", "held_out": 0.5}


def test_a_yolo_cannot_look_ahead_and_says_so(data: Path) -> None:
    from detkd.ultralytics import distill_trainer

    with pytest.raises(ConfigError, match=r"another `distill\.balance` than meta for a YOLO student: ultralytics' trainer"):
        configure(data, distill=ahead(Path("teacher.pt"), {"bckd": {}}))
    with pytest.raises(ConfigError, match="balance: expected another one than meta"):
        distill_trainer("teacher.pt", balance="meta")
    tree = {"name": "x", "data": "d", "student": {"model": "cnn"}, "distill": {**ahead(Path("t"), {}), "held_out": 0.9}}
    with pytest.raises(ConfigError, match="held_out"):
        parse_config(tree)
