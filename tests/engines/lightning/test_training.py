"""Training by Lightning: what a run leaves, what distillation changes, and what must not break."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detkd.config import parse_distillation
from detkd.data.detection import DetectionDataset
from detkd.engines.distillation import build_distiller
from detkd.engines.lightning.training import LAST_CHECKPOINT
from detkd.errors import ConfigError, DataError, DetkdError
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model, load_model
from tests.engines.conftest import CutError
from tests.engines.lightning.detectors import ENGINE, QUICK, FeatureDistiller, configure, faster_rcnn, mask_rcnn

if TYPE_CHECKING:
    from torch import nn

    from detkd.engines.result import TrainingResult


pytestmark = pytest.mark.usefixtures("one_thread")


def run(
    data: Path, folder: Path, *, distilled: bool = True, resume: bool = False, **changes: Any
) -> tuple[TrainingResult, nn.Module, FeatureDistiller | None]:
    """Train the tiny detector, by a teacher of other width where it is distilled."""
    student = faster_rcnn()
    distiller = FeatureDistiller(student, faster_rcnn(12, seed=3)) if distilled else None
    dataset = DetectionDataset.load(data)
    result = ENGINE.train(student, distiller, configure(data, **changes), dataset, folder, resume=resume)
    return result, student, distiller


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return state


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_losses_fall_and_the_best_student_is_kept(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result, _, _ = run(data, tmp_path / "run", distilled=False, train={"epochs": 12, "imgsz": 64, "batch": 2})
    first, last = result.history[0], result.history[-1]
    terms = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    assert sum(last[f"train/{name}"] for name in terms) < 0.8 * sum(first[f"train/{name}"] for name in terms)
    scores = [row["metrics/mAP50-95(B)"] for row in result.history]
    assert scores[-1] > scores[0]
    assert result.seconds == last["time"] > first["time"]
    assert result.weights == []
    # The checkpoint is plain, and scores what its epoch did.
    model = faster_rcnn(seed=9)
    model.load_state_dict(load(result.checkpoint))
    from detkd.evaluation.coco import evaluate_coco
    from detkd.evaluation.torchvision import predict_coco

    dataset = DetectionDataset.load(data)
    found = predict_coco(model, dataset.images("val"), dataset.coco("val"), class_names=dataset.names, imgsz=64)
    assert evaluate_coco(dataset.coco("val"), found)["AP"] == pytest.approx(max(scores), abs=1e-6)
    written = (tmp_path / "run" / "lightning" / "results.csv").read_text().splitlines()
    assert len(written) == 13
    assert written[0].split(",") == list(first)
    output, errors = capfd.readouterr()
    assert errors == ""
    assert [line.split("  ")[0] for line in output.splitlines()] == [f"run: epoch {n + 1}/12" for n in range(12)]


def test_distillation_reaches_student_and_aligners_and_leaves_the_teacher(data: Path, tmp_path: Path) -> None:
    result, student, distiller = run(data, tmp_path / "run")
    _, alone, _ = run(data, tmp_path / "alone", distilled=False)
    assert distiller is not None
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), alone.parameters(), strict=True))
    fresh = FeatureDistiller(student, faster_rcnn(12, seed=3))
    assert not torch.equal(distiller.aligner.weight, fresh.aligner.weight)
    assert distiller.aligner.weight.grad is not None
    (teacher,), before = distiller.teachers, faster_rcnn(12, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), before.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert result.history[1]["train/features"] < result.history[0]["train/features"]
    assert result.weights == [{"features": 1.0}] * 2
    assert distiller.seen == [0.0, 0.5, 1.0, 1.5]
    assert distiller.epochs == 2
    assert hooks(student) == 0


def test_checkpoints_hold_the_student_alone_at_every_moment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, found, move = faster_rcnn().state_dict(), [], Path.replace

    def watch(self: Path, target: Path) -> Path:
        if target.suffix != ".csv":
            found.append(load(self))
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", watch)
        run(data, tmp_path / "run")
    assert len(found) >= 3
    for content in found:
        state = content.get("state_dict", content)
        assert state.keys() == plain.keys()
        assert all(state[name].shape == value.shape for name, value in plain.items())
    last = load(tmp_path / "run" / LAST_CHECKPOINT)
    assert sorted(last["distiller"]) == ["aligner.bias", "aligner.weight"]
    faster_rcnn().load_state_dict(last["state_dict"])
    wide = faster_rcnn(12, seed=3).state_dict()["backbone.0.weight"].shape  # no teacher anywhere, not even in the optimizer
    moments = [state["exp_avg"].shape for state in last["optimizer_states"][0]["state"].values()]
    assert wide not in moments
    left = sorted(path.name for path in (tmp_path / "run" / "lightning").iterdir())
    assert left == ["best.safetensors", "last.ckpt", "results.csv"]


LONG = {"train": {"epochs": 3, "imgsz": 64, "batch": 2}}
AVERAGED = {"optim": {**QUICK, "ema": 0.9, "schedule": "cosine"}, **LONG}


@pytest.mark.parametrize(("file", "number"), [("last", 2), ("best", 2), ("last", 3)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int
) -> None:
    """Cut while a file is written, the n-th checkpoint or the second best student; nothing else puts one in its place."""
    whole, _, _ = run(data, tmp_path / "whole", **AVERAGED)
    move, calls = Path.replace, []

    def stop(self: Path, target: Path) -> Path:
        calls.append(target.stem)
        if calls.count(file) == number:
            raise CutError
        return move(self, target)

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Path, "replace", stop)
        run(data, tmp_path / "cut", **AVERAGED)
    kept = load(tmp_path / "cut" / LAST_CHECKPOINT)
    assert kept["epoch"] == calls.count("last") - (2 if file == "last" else 1)
    again, _, _ = run(data, tmp_path / "cut", resume=True, **AVERAGED)
    timeless = [[{**row, "time": 0} for row in result.history] for result in (whole, again)]
    assert timeless[0] == timeless[1]
    assert again.weights == whole.weights
    assert again.history[2]["time"] > again.history[1]["time"] > again.history[0]["time"]
    for name in ("last.ckpt", "best.safetensors"):
        one, other = (load(tmp_path / folder / "lightning" / name) for folder in ("whole", "cut"))
        assert_equal(one, other, name)


def assert_equal(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in {"time", "loops"}:  # Lightning counts resumptions there
                assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_equal(first, second, f"{where}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def test_a_failure_in_the_middle_removes_the_hooks(data: Path, tmp_path: Path) -> None:
    student = faster_rcnn()

    class Failing(FeatureDistiller):
        def forward(self, *args: Any) -> Any:
            assert hooks(student) == 1
            raise CutError

    distiller = Failing(student, faster_rcnn(12, seed=3))
    with pytest.raises(CutError):
        ENGINE.train(student, distiller, configure(data), DetectionDataset.load(data), tmp_path / "run")
    assert hooks(student) == 0
    assert not (tmp_path / "run" / LAST_CHECKPOINT).exists()


def test_the_average_is_what_is_judged_and_kept(data: Path, tmp_path: Path) -> None:
    result, student, _ = run(data, tmp_path / "run", distilled=False, optim={**QUICK, "ema": 0.5})
    best, last = load(result.checkpoint), load(tmp_path / "run" / LAST_CHECKPOINT)
    own = student.state_dict()
    assert all(torch.equal(last["state_dict"][name], value) for name, value in own.items())
    assert best.keys() == own.keys()
    assert any(not torch.equal(best[name], value) for name, value in own.items())


def test_masks_are_learnt_and_judged(data: Path, tmp_path: Path) -> None:
    outlined = Path(shutil.copytree(data.parent, tmp_path / "data")) / "data.yaml"
    for label in (outlined.parent / "labels").rglob("*.txt"):
        label.write_text("0 .07 .07 .43 .07 .43 .43 .07 .43\n1 .56 .47 .93 .47 .93 .84 .56 .84\n")
    config = configure(outlined, train={"epochs": 25, "imgsz": 64, "batch": 2}, optim={**QUICK, "lr": 0.005})
    result = ENGINE.train(mask_rcnn(), None, config, DetectionDataset.load(outlined), tmp_path / "run")
    masks = [row["train/loss_mask"] for row in result.history]
    assert masks[-1] < 0.7 * masks[0]
    assert max(row["metrics/mAP50-95(M)"] for row in result.history) > 0.1
    with pytest.raises(DataError, match="expected a mask for each object"):
        ENGINE.train(mask_rcnn(), None, configure(data), DetectionDataset.load(data), tmp_path / "boxes")


def test_validation_sees_no_hooks(data: Path, tmp_path: Path) -> None:
    student = faster_rcnn()
    seen = []
    student.register_forward_pre_hook(lambda model, _: seen.append((model.training, hooks(model))))
    distiller = FeatureDistiller(student, faster_rcnn(12, seed=3))
    ENGINE.train(student, distiller, configure(data), DetectionDataset.load(data), tmp_path / "run")
    assert seen == [(True, 1), (True, 1), (False, 0), (False, 0)] * 2


def test_the_students_gradient_is_clipped(data: Path, tmp_path: Path) -> None:
    plain = {"name": "sgd", "momentum": 0, "weight_decay": 0, "lr": 1.0, "clip": 1e-3}
    once = {"epochs": 1, "imgsz": 64, "batch": 4}
    _, student, distiller = run(data, tmp_path / "run", optim={**QUICK, **plain}, train=once)
    assert distiller is not None
    for model, before in ((student, faster_rcnn()), (distiller, FeatureDistiller(student, faster_rcnn(12)))):
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        moved = sum(float((after - start).detach().square().sum()) for after, start in pairs) ** 0.5
        assert moved == pytest.approx(1e-3, rel=0.02)


def test_rare_classes_are_shown_more_often_where_it_is_asked_for(data: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(data.parent, tmp_path / "data")) / "data.yaml"
    for index in range(1, 4):
        (copied.parent / "labels" / "train" / f"{index}.txt").write_text("0 0.25 0.25 0.375 0.375\n")
    shown = []
    for sampling in ("plain", "repeat_factor"):
        changes = {"loading": {"sampling": sampling, "threshold": 1.0}, "train": {"epochs": 1, "imgsz": 64, "batch": 1}}
        _, _, distiller = run(copied, tmp_path / sampling, **changes)
        assert distiller is not None
        shown.append(len(distiller.seen))
    assert shown == [4, 5]  # the square is in one of four pictures, which is shown √4 times


def test_patience_ends_a_run_and_keeps_it_ended(data: Path, tmp_path: Path) -> None:
    hopeless = {"optim": {**QUICK, "lr": 1e-12, "patience": 2}, "train": {"epochs": 9, "imgsz": 64, "batch": 2}}
    result, _, _ = run(data, tmp_path / "run", distilled=False, **hopeless)
    best = max(row["metrics/mAP50-95(B)"] for row in result.history)
    first = [row["metrics/mAP50-95(B)"] for row in result.history].index(best)
    assert len(result.history) == first + 3 < 9
    again, _, _ = run(data, tmp_path / "run", distilled=False, resume=True, **hopeless)
    assert again.history == result.history


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    student = faster_rcnn()
    distiller = FeatureDistiller(student, faster_rcnn(12, seed=3), weight=math.inf)
    with pytest.raises(DetkdError, match=r"in epoch 1 \['loss_classifier', .*Lower optim\.lr"):
        ENGINE.train(student, distiller, configure(data), DetectionDataset.load(data), tmp_path / "run")


def test_half_precision_trains(data: Path, tmp_path: Path) -> None:
    half, student, _ = run(data, tmp_path / "half", trainer={"precision": "bf16-mixed"})
    whole, _, _ = run(data, tmp_path / "whole")
    assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
    first, second = (result.history[0] for result in (half, whole))
    totals = [sum(value for name, value in row.items() if name.startswith("train/loss")) for row in (first, second)]
    assert totals[0] == pytest.approx(totals[1], rel=0.1)  # which boxes are drawn turns on the last digit
    assert first["train/features"] == pytest.approx(second["train/features"], rel=0.02)
    assert first["train/features"] != second["train/features"]


def test_workers_and_tensorboard_change_nothing(data: Path, tmp_path: Path) -> None:
    plain, _, _ = run(data, tmp_path / "plain")
    other, _, _ = run(data, tmp_path / "other", loading={"workers": 1}, loggers=["tensorboard"])
    for one, two in zip(plain.history, other.history, strict=True):
        assert {**one, "time": 0} == {**two, "time": 0}
    events = EventAccumulator(str(tmp_path / "other" / "tensorboard")).Reload()
    for key in set(other.history[0]) - {"epoch"}:
        assert [event.value for event in events.Scalars(key)] == pytest.approx([row[key] for row in other.history])


def test_other_seeds_give_other_students(data: Path, tmp_path: Path) -> None:
    found = [
        run(data, tmp_path / str(seed), distilled=False, train={"epochs": 1, "imgsz": 64, "batch": 2, "seed": seed})[1]
        for seed in (0, 1)
    ]
    assert any(not torch.equal(a, b) for a, b in zip(*(student.parameters() for student in found), strict=True))


def test_faults_of_the_configuration_are_all_named(data: Path, tmp_path: Path) -> None:
    faulty = configure(
        data,
        trainer={"max_epochs": 3, "devicez": 1, "strategy": "fsdp1", "precision": "bf16-true", "logger": True},
        augment=[{"HorizontalFlop": {}}],
        train={"device": "tpu", "imgsz": 64},
    )
    with pytest.raises(ConfigError) as error:
        ENGINE.check(faulty)
    for line in (
        r"trainer\.max_epochs: set by another section",
        r"trainer\.logger: set by another section",
        r"trainer\.devicez: unknown to Lightning's Trainer; got 1",
        r"trainer\.strategy: expected one of \['auto', 'ddp', 'fsdp'\]",
        r"trainer\.precision: expected 32-true, bf16-mixed or 16-mixed, .* got 'bf16-true'",
        r"train\.device: expected cpu, mps",
        r"augment\.0: .*HorizontalFlop",
    ):
        error.match(line)
    with pytest.raises(ConfigError, match=r"trainer, train.device: expected what Lightning's Trainer takes, but: .*17"):
        run(data, tmp_path / "run", trainer={"precision": 17})
    with pytest.raises(ConfigError, match=r"train\.batch: expected a multiple of the 2 processes, but got 3"):
        run(data, tmp_path / "run", trainer={"devices": 2}, train={"batch": 3, "imgsz": 64})


def test_what_cannot_be_sharded_is_refused(data: Path) -> None:
    teachers = [{"ema": 0.9}, {"weights": "unused.safetensors", "compile": True}]
    faulty = configure(
        data,
        trainer={"strategy": "fsdp", "precision": "16-mixed"},
        distill={"teachers": teachers, "balance": "meta", "terms": {"pkd": {}}},
    )
    with pytest.raises(ConfigError) as error:
        ENGINE.check(faulty)
    for line in (
        r"distill\.balance: expected another than meta with trainer\.strategy=fsdp",
        r"distill\.teacher\.ema: expected none with trainer\.strategy=fsdp",
        r"distill\.teacher\.compile: expected false with trainer\.strategy=fsdp",
        r"trainer\.precision: expected 32-true or bf16-mixed with trainer\.strategy=fsdp, .* got '16-mixed'",
    ):
        error.match(line)
    ENGINE.check(configure(data, trainer={"strategy": "fsdp", "precision": "bf16-mixed"}))


def test_processes_that_would_each_train_alone_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun leaves it
    with pytest.raises(ConfigError, match=r"trainer: expected {strategy: ddp, devices: 2} for the 2 processes .* makes 1"):
        ENGINE.check(configure(data))


def test_what_lightning_refuses_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    faulty = configure(data, output=str(tmp_path / "runs"), trainer={"precision": 17}, loggers=["tensorboard"])
    with pytest.raises(ConfigError, match=r"trainer, train.device: expected what Lightning's Trainer takes, but: .*17"):
        ENGINE.check(faulty)
    ENGINE.check(configure(data, output=str(tmp_path / "runs"), loggers=["tensorboard"]))
    assert not (tmp_path / "runs").exists()


def test_detectors_of_torchvision_distil_by_the_same_code_as_yolo(data: Path, tmp_path: Path) -> None:
    def build(width: float, role: str) -> nn.Module:
        few = {"pre_nms": 32, "post_nms": 32, "sampled": 16}
        spec = ModelConfig(model="fasterrcnn_resnet18_fpn", width=width, proposals=few)
        torch.manual_seed(0)
        return build_model(spec, ("disc", "square"), role=role, imgsz=64)[0]

    student, teacher = build(0.125, "student"), build(0.25, "teacher")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distill = parse_distillation({"teacher": {"weights": "unused.safetensors"}, "terms": {"pkd": {}, "fitnet": {}}})
    distiller = build_distiller(student, [teacher], distill, 64)
    aligners = {name: value.detach().clone() for name, value in distiller.named_parameters()}
    assert aligners
    config = configure(data, optim={**QUICK, "ema": 0.5})
    result = ENGINE.train(student, distiller, config, DetectionDataset.load(data), tmp_path / "run")
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(weights[term] > 0 for weights in result.weights for term in ("pkd", "fitnet"))
    assert all(not torch.equal(aligners[name], value) for name, value in distiller.named_parameters())
    assert hooks(student) == hooks(teacher) == 0
    kept = load_model(result.checkpoint)
    assert kept.state_dict().keys() == student.state_dict().keys()
    last = load(tmp_path / "run" / LAST_CHECKPOINT)
    assert last["state_dict"].keys() == student.state_dict().keys()
    assert last["distiller"].keys() == distiller.state_dict().keys()
