"""Training of a tiny YOLO on four drawn pictures, with and without a teacher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from detkd.adapters.ultralytics import load_yolo, read_state_dict
from detkd.distiller import Distiller
from detkd.engines import ultralytics as engine
from detkd.engines.distillation import build_distiller
from detkd.engines.resuming.ultralytics import epochs_left
from detkd.engines.run import run_config
from detkd.errors import ConfigError, DataError, WeightsError
from detkd.models.ultralytics import build_yolo
from detkd.report.console import TrainingProgress
from tests.adapters.families import build
from tests.engines.conftest import NAMES, CutError, configure

if TYPE_CHECKING:
    from detkd.config import DetectionConfig
    from detkd.engines.result import TrainingResult


def distill(teacher: Path, **terms: object) -> dict[str, object]:
    return {
        "teacher": {"model": "yolov5n.yaml", "width": 0.125, "weights": str(teacher)},
        "terms": terms or {"bckd": {}, "ld": {}, "pkd": {}, "score_l2": {}},
    }


def train(config: DetectionConfig, folder: Path) -> tuple[TrainingResult, nn.Module, nn.Module | None, object]:
    torch.manual_seed(0)
    student, _ = build_yolo(config.student, NAMES, role="student")
    teacher, distiller = None, None
    if config.distill is not None:
        teacher, _ = build_yolo(config.distill.teacher, NAMES, role="teacher")
        distiller = build_distiller(student, [teacher], config.distill, config.train.imgsz)
    result = engine.run_trainer(student, distiller, engine.trainer_arguments(config, config.data, folder))
    return result, student, teacher, distiller


def test_distillation_trains_aligners_and_student_but_never_the_teacher(
    resolved: Path, teacher: Path, tmp_path: Path
) -> None:
    # Without the labels: an untrained teacher pulls elsewhere, and ultralytics' own losses start near 0, because its
    # assigner gives an untrained student hardly any boxes to fit.
    off = dict.fromkeys(("box", "cls", "dfl", "mosaic", "warmup_epochs"), 0.0)
    config = configure(
        resolved,
        distill={**distill(teacher), "balance": "none"},
        train={"epochs": 12, "imgsz": 64, "batch": 4},
        trainer={"optimizer": "AdamW", "lr0": 0.002, "verbose": False, **off},
    )
    torch.manual_seed(0)
    student, _ = build_yolo(config.student, NAMES, role="student")
    model, _ = build_yolo(config.distill.teacher, NAMES, role="teacher")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    distiller = build_distiller(student, [model], config.distill, config.train.imgsz)
    aligners = {name: value.detach().clone() for name, value in distiller.named_parameters()}
    result = engine.run_trainer(student, distiller, engine.trainer_arguments(config, resolved, tmp_path))

    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert aligners
    for name, value in distiller.named_parameters():
        assert not torch.equal(value, aligners[name]), name
    for term in ("bckd", "ld", "pkd", "score_l2"):
        values = [row[f"train/{term}"] for row in result.history]
        assert sum(values[-3:]) < sum(values[:3]), (term, values)
    assert set(result.weights[0]) == {"bckd", "ld", "pkd", "score_l2"}

    plain, _ = build_yolo(config.student, NAMES, role="student")
    kept = load_yolo(result.checkpoint).model.state_dict()
    assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_the_checkpoint_loads_where_detkd_cannot_be_imported(resolved: Path, teacher: Path, tmp_path: Path) -> None:
    result, *_ = train(configure(resolved, distill=distill(teacher)), tmp_path)
    code = (
        "import sys; sys.modules['detkd'] = None; from ultralytics import YOLO; "
        f"assert list(YOLO({str(result.checkpoint)!r}).names.values()) == ['disc', 'square']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_same_seed_starts_alike_and_distillation_changes_the_end(resolved: Path, teacher: Path, tmp_path: Path) -> None:
    alone = configure(resolved, distill=None)
    helped = configure(resolved, distill=distill(teacher, pkd={}))
    weights = [
        load_yolo(train(config, tmp_path / str(index))[0].checkpoint).model.state_dict()["model.0.conv.weight"]
        for index, config in enumerate((alone, alone, helped))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_run_leaves_its_folder_and_faults_leave_none(data: Path, teacher: Path, tmp_path: Path) -> None:
    config = configure(data, distill=distill(teacher), output=str(tmp_path / "runs"))
    folder = run_config(config)
    assert {"config.yaml", "results.json", "student.pt", "training.png", "detections.png"} <= {
        path.name for path in folder.iterdir()
    }
    # After a training ultralytics has told torch that its classes are safe: a checkpoint must not pass for a state dict.
    assert read_state_dict(folder / "student.pt") is None
    torch.save({"model": None, "ema": load_yolo(folder / "student.pt").model}, tmp_path / "last.pt")  # as of a cut run
    assert read_state_dict(tmp_path / "last.pt") is None
    with pytest.raises(ConfigError, match="finished one"):
        run_config(config)
    faults = {
        "missing weights": (WeightsError, {"distill": distill(tmp_path / "none.pt")}),
        "missing data": (DataError, {"data": str(tmp_path / "none.yaml")}),
        "unknown argument": (ConfigError, {"trainer": {"learning_rate": 1}}),
        "no such split": (DataError, {"evaluate": ["test"]}),
    }
    for reason, (kind, change) in faults.items():
        with pytest.raises(kind) as error:
            run_config(configure(data, **{"distill": None, "output": str(tmp_path / "bad"), **change}))
        assert "\n" not in str(error.value), reason
        assert not (tmp_path / "bad").exists(), reason


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = distill(teacher, bckd={}, pkd={})
    schedule = {"epochs": 4, "imgsz": 64, "batch": 4}
    config = configure(data, distill=terms, train=schedule, output=str(tmp_path))
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match="hold a run to resume"):
        run_config(config, resume=True)

    def cut(_: object, done: int, values: object) -> None:
        if done == 2:
            raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", cut)
        with pytest.raises(CutError):
            run_config(config)
    kept = torch.load(folder / "ultralytics" / "weights" / "distiller-1.pt", weights_only=True)
    assert len(kept["weights"]) == 2
    assert kept["distiller"]["balance.norms"].min() > 0
    with pytest.raises(ConfigError, match="--resume"):
        run_config(config)
    with pytest.raises(ConfigError, match="differs"):
        run_config(configure(data, distill=None, train=schedule, output=str(tmp_path)), resume=True)

    loaded = []
    load = Distiller.load_state_dict

    def watch(self: nn.Module, state: dict[str, torch.Tensor]) -> object:
        loaded.append(state)
        return load(self, state)

    monkeypatch.setattr(Distiller, "load_state_dict", watch)
    results = json.loads((run_config(config, resume=True) / "results.json").read_text())
    assert all(torch.equal(loaded[0][name], value) for name, value in kept["distiller"].items())
    assert [row["epoch"] for row in results["history"]] == [1, 2, 3, 4]
    assert len(results["distill_weights"]) == 4
    assert results["train_seconds"] == pytest.approx(results["history"][1]["time"] + results["history"][3]["time"])


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        ({"single_cls": True}, "trainer.single_cls: expected false"),
        ({"save": False}, "trainer.save: expected true"),
        ({"task": "classify"}, "trainer.task: set by another section"),
    ],
)
def test_arguments_that_cannot_be_followed_are_refused(trainer: dict[str, Any], says: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        engine.trainer_arguments(configure(data, distill=None, trainer=trainer), data, data)


def test_sizes_that_a_smaller_teacher_cannot_take_and_devices_without_processes_are_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = configure(data, distill={"teacher": {"weights": "t.pt", "scale": 0.5}}, trainer={"multi_scale": 0.5})
    with pytest.raises(ConfigError, match="trainer.multi_scale: expected none beside a teacher's `scale` below 1"):
        engine.trainer_arguments(small, data, data)
    several = configure(data, distill=None, train={"epochs": 1, "imgsz": 64, "batch": 4, "device": "0,1"})
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        engine.trainer_arguments(several, data, data)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert engine.trainer_arguments(several, data, data)["device"] == "0,1"


def test_a_run_without_validation_has_no_patience_to_lose(tmp_path: Path) -> None:
    for best, left in ((0, 150), (20, 0), (140, 150)):
        content = {
            "model": build("yolo11n"),
            "epoch": 149,
            "stopper": {"best_epoch": best},
            "train_args": {"task": "detect"},
        }
        torch.save(content, tmp_path / "last.pt")
        assert epochs_left(tmp_path / "last.pt", 300, 100) == left


def test_services_of_ultralytics_settings_are_told_nothing_not_even_of_the_beginning(
    resolved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils import callbacks

    told: list[str] = []

    def integrate(instance: Any) -> None:
        if "Trainer" in type(instance).__name__:
            instance.callbacks["on_pretrain_routine_start"].append(lambda trainer: told.append(type(trainer).__name__))

    monkeypatch.setattr(callbacks, "add_integration_callbacks", integrate)
    train(configure(resolved, distill=None, train={"epochs": 1, "imgsz": 64, "batch": 4}), tmp_path)
    assert told == []
    assert callbacks.add_integration_callbacks is integrate
