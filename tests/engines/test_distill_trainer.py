"""The one-line trainer inside ultralytics' own API, and what must not break there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import detkd.ultralytics
from detkd.adapters.ultralytics import UltralyticsAdapter, import_ultralytics, load_yolo
from detkd.distiller import Distiller
from detkd.errors import AdapterError, ConfigError, WeightsError
from detkd.teachers.live import LiveTeacher
from detkd.terms import Term
from detkd.types import Targets
from detkd.ultralytics import distill_trainer
from tests.adapters.families import build
from tests.engines.conftest import CutError

pytestmark = pytest.mark.usefixtures("one_thread")

TERMS = {"bckd": {}, "pkd": {}}
SMALL = {"epochs": 1, "imgsz": 64, "batch": 4, "nbs": 4, "workers": 0, "device": "cpu", "amp": False}
STEADY = {"optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0, "mosaic": 0.0, "plots": False, "verbose": False}


def student_yaml(name: str, folder: Path) -> Path:
    """A family at the tests' tiny width; the name ends in the scale that ultralytics reads from it."""
    tree = {key: value for key, value in build(name).yaml.items() if key not in {"yaml_file", "scale", "nc"}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"nc": 2, **tree}))
    return path


def train(trainer: Any, data: Path, folder: Path, name: str = "yolo11n", **arguments: Any) -> Any:
    """Train a tiny student through ultralytics' own API; returns the trainer object."""
    yolo = import_ultralytics().YOLO(str(student_yaml(name, folder)), verbose=False)
    place = {"project": str(folder), "name": "run", "exist_ok": True}
    yolo.train(trainer=trainer, data=str(data), **{**SMALL, **STEADY, **place, **arguments})
    return yolo.trainer


def train_first_epoch(trainer: Any, data: Path, folder: Path, name: str, *, epochs: int, **arguments: Any) -> Any:
    """Cut a run short when its second epoch begins; returns its last checkpoint, ready to resume."""

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise CutError

    yolo = import_ultralytics().YOLO(str(student_yaml(name, folder)))
    yolo.add_callback("on_train_epoch_start", stop)
    place = {"project": str(folder), "name": "run", "exist_ok": True}
    with pytest.raises(CutError):
        yolo.train(trainer=trainer, data=str(data), **{**SMALL, **STEADY, **place, "epochs": epochs, **arguments})
    return import_ultralytics().YOLO(str(folder / "run" / "weights" / "last.pt"))


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return load_yolo(path).model.state_dict()


def test_one_line_distils_and_the_checkpoint_holds_the_student_alone(
    resolved: Path, checkpoint: Path, tmp_path: Path
) -> None:
    trainer = train(distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path, epochs=2)
    assert {"bckd", "pkd"} <= set(trainer.loss_names)
    assert all(weight > 0 for epoch in trainer.weight_log.epochs for weight in epoch.values())
    plain = parameters(train(None, resolved, tmp_path / "plain", epochs=2).best)
    for path in (trainer.best, trainer.last):
        kept = parameters(path)
        assert kept.keys() == plain.keys()
        assert not any(module._forward_hooks for module in load_yolo(path).model.modules())
    assert any(not torch.equal(value, plain[name]) for name, value in kept.items())


def test_a_student_inherits_once_and_not_again_when_it_resumes(
    resolved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": build("yolo11n"), "train_args": {"task": "detect", "imgsz": 64}}, tmp_path / "teacher.pt")
    kind = distill_trainer(tmp_path / "teacher.pt", terms={"bckd": {}}, inherit=True)
    started = []
    original = detkd.ultralytics.build_distiller

    def watch(student: Any, *rest: Any) -> Distiller:
        started.append(student.state_dict()["model.0.conv.weight"].clone())
        return original(student, *rest)

    monkeypatch.setattr(detkd.ultralytics, "build_distiller", watch)
    again = train_first_epoch(kind, resolved, tmp_path, "yolo11n", epochs=2)
    teacher = build("yolo11n").state_dict()["model.0.conv.weight"]
    assert torch.equal(started[0], teacher)
    again.train(resume=True, trainer=kind)
    assert not torch.equal(started[1], teacher)


def test_several_teachers_teach_at_once(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"model": build("yolo26n"), "train_args": {"task": "detect", "imgsz": 64}}, tmp_path / "other.pt")
    kind = distill_trainer(
        [checkpoint, {"weights": tmp_path / "other.pt", "scale": 2.0}],
        terms={"bckd": {}, "pkd": {"schedule": {"stop": 1}}},
        ensemble="ca_mkd",
        balance="uncertainty",
    )
    trainer = train(kind, resolved, tmp_path, epochs=2)
    first, second = trainer.weight_log.epochs
    assert first["bckd"] > 0
    assert first["pkd"] > 0
    assert second["pkd"] == 0
    assert parameters(trainer.best).keys() == build("yolo11n").state_dict().keys()


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo26n-seg"])
def test_segmenters_distil_their_masks(resolved: Path, tmp_path: Path, name: str) -> None:
    teacher = build(name)
    torch.save({"model": teacher, "train_args": {"task": "segment", "imgsz": 64}}, tmp_path / "teacher.pt")
    kind = distill_trainer(tmp_path / "teacher.pt", terms={"bckd": {}, "mask_kd": {}}, task="segment")
    trainer = train(kind, segments(resolved, tmp_path), tmp_path, name)
    assert trainer.weight_log.epochs[0]["mask_kd"] > 0
    assert float(trainer.tloss["mask_kd"]) > 0


def segments(data: Path, folder: Path) -> Path:
    """The same data set with outlines in place of boxes."""
    root = Path(yaml.safe_load(data.read_text())["path"])
    for split in ("train", "val"):
        (folder / "segments" / "labels" / split).mkdir(parents=True)
        shutil.copytree(root / "images" / split, folder / "segments" / "images" / split)
        for label in (root / "labels" / split).glob("*.txt"):
            lines = ["0 0.07 0.07 0.43 0.07 0.43 0.43 0.07 0.43", "1 0.56 0.47 0.93 0.47 0.93 0.84 0.56 0.84"]
            (folder / "segments" / "labels" / split / label.name).write_text("\n".join(lines))
    return write_data(folder / "segments.yaml", folder / "segments")


def write_data(path: Path, root: Path) -> Path:
    tree = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["disc", "square"]}
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"multi_scale": 0.5, "epochs": 3},
        {"nbs": 8, "epochs": 3},
        {"mosaic": 1.0, "close_mosaic": 1, "epochs": 2},
        {"freeze": 3},
        {"optimizer": "SGD"},
        {"optimizer": "MuSGD"},
    ],
    ids="-".join,
)
def test_ultralytics_arguments_keep_working(
    resolved: Path, checkpoint: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    trainer = train(distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path, **arguments)
    assert len(trainer.weight_log.epochs) == arguments.get("epochs", 1)
    assert all(weight > 0 for weight in trainer.weight_log.epochs[-1].values())
    first = parameters(trainer.best)["model.0.conv.weight"].float()
    assert torch.isfinite(first).all()
    if "freeze" in arguments:
        torch.testing.assert_close(first, build("yolo11n").state_dict()["model.0.conv.weight"], atol=1, rtol=0)


def test_a_kill_in_the_middle_of_a_save_leaves_the_epoch_before(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = distill_trainer(checkpoint, terms=TERMS)
    write, calls = Path.write_bytes, []

    def cut(self: Path, content: bytes) -> int:
        calls.append(self.name)
        if len(calls) > 2:  # last and best of the first epoch were whole
            write(self, content[: len(content) // 2])
            raise CutError
        return write(self, content)

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Path, "write_bytes", cut)
        train(kind, resolved, tmp_path, epochs=3)
    weights = tmp_path / "run" / "weights"
    assert load_yolo(weights / "last.pt").ckpt["epoch"] == 0

    saved = torch.load(weights / "distiller-0.pt", weights_only=True)["distiller"]
    loaded = []
    monkeypatch.setattr(Distiller, "load_state_dict", lambda self, state: loaded.append(state))
    yolo = import_ultralytics().YOLO(str(weights / "last.pt"))
    yolo.train(resume=True, trainer=kind)
    assert loaded[0].keys() == saved.keys()
    assert all(torch.equal(loaded[0][name], value) for name, value in saved.items())
    assert len(yolo.trainer.weight_log.epochs) == 3
    assert [path.name for path in weights.glob("distiller-*")] == ["distiller-2.pt"]


def test_an_end_to_end_head_goes_on_counting_its_epochs(resolved: Path, tmp_path: Path) -> None:
    """Its criterion shifts weight from one head to the other, epoch by epoch."""
    torch.save({"model": build("yolo26n"), "train_args": {"task": "detect", "imgsz": 64}}, tmp_path / "teacher.pt")
    kind = distill_trainer(tmp_path / "teacher.pt", terms={"bckd": {}})
    again = train_first_epoch(kind, resolved, tmp_path, "yolo26n", epochs=4)
    counted = []
    again.add_callback("on_train_epoch_start", lambda t: counted.append(t.model.criterion._task.updates))
    again.train(resume=True, trainer=kind)
    assert counted == [1, 2, 3]


def test_early_stopping_ends_the_run_and_its_hooks(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.engine.trainer import BaseTrainer

    validate = BaseTrainer.validate
    monkeypatch.setattr(BaseTrainer, "validate", lambda self: (validate(self)[0], 0.5))  # no epoch better than the first
    trainer = train(distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path, epochs=30, patience=2)
    assert len(trainer.weight_log.epochs) == 3
    assert not trainer.distiller._student._capture._handles


@pytest.mark.parametrize("balance", ["none", "gradient_ratio"])
def test_compile_gives_the_same_student(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balance: str
) -> None:
    kind = distill_trainer(checkpoint, terms={"bckd": {"weight": 1.0}, "pkd": {"weight": 1.0}}, balance=balance)
    eager = train(kind, resolved, tmp_path / "eager", epochs=2)
    compiled, compile_ = [], torch.compile

    def traced(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="aot_eager")  # the same graphs as inductor's, without its minutes

    monkeypatch.setattr(torch, "compile", traced)
    fast = train(kind, resolved, tmp_path / "fast", epochs=2, compile=True)
    assert len(compiled) == 1
    assert yaml.safe_load((tmp_path / "fast" / "run" / "args.yaml").read_text())["compile"] is True
    for path in (fast.best, fast.last):
        assert load_yolo(path).ckpt["train_args"]["compile"] is True
    # Compiled levels do not depend on each other in autograd's eyes, so the norms differ somewhat.
    slack = {"none": 1e-6, "gradient_ratio": 1.0}[balance]
    for one, other in zip(eager.weight_log.epochs, fast.weight_log.epochs, strict=True):
        assert other == pytest.approx(one, rel=slack)
        assert min(other.values()) > 0
    if balance == "none":
        learned = parameters(fast.last)
        for name, value in parameters(eager.last).items():
            torch.testing.assert_close(learned[name].float(), value.float(), rtol=2e-2, atol=2e-3)


def test_a_resumed_run_compiles_as_the_run_it_goes_on_with(
    resolved: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    # Whatever is compiled runs as it is: what counts is how often it is asked for, and with which mode.
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options["mode"]) or function)
    kind = distill_trainer(checkpoint, terms=TERMS)
    again = train_first_epoch(kind, resolved, tmp_path, "yolo11n", epochs=2, compile="reduce-overhead")
    assert compiled == ["reduce-overhead"]
    again.train(resume=True, trainer=kind)
    assert compiled == ["reduce-overhead", "reduce-overhead"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_keeps_losses_in_float32(dtype: torch.dtype) -> None:
    student, teacher = build("yolo11n").train(), build("yolov8n")
    on_features = ("pkd", "at", "cwd", "fgd", "mgd", "sp", "pairwise", "score_l2", "fitnet")
    names = ("bckd", "ld", "cross_kd", "hard_label", *on_features)
    distiller = Distiller(
        UltralyticsAdapter(student), [LiveTeacher(UltralyticsAdapter(teacher))], [Term(name) for name in names]
    )
    distiller.attach()
    images = torch.rand(2, 3, 64, 64)
    labels = Targets(torch.tensor([4.0, 4.0, 40.0, 40.0]).expand(2, 1, 4), torch.zeros(2, 1, dtype=torch.long))
    with torch.autocast("cpu", dtype=dtype):
        outputs = student(images)
        task = outputs["scores"].float().square().mean() + outputs["boxes"].float().square().mean()
        result = distiller(images, labels, task)
    assert outputs["scores"].dtype == dtype
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in result.terms.values())
    assert all(torch.isfinite(weight) for weight in result.weights.values())
    assert result.weights["bckd"] > 0
    (task + result.loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
def test_the_student_exports_with_equal_outputs(resolved: Path, checkpoint: Path, tmp_path: Path, file_format: str) -> None:
    trainer = train(distill_trainer(checkpoint, terms=TERMS), resolved, tmp_path)
    images = torch.rand(1, 3, 64, 64)
    model = load_yolo(trainer.best).model.float().eval()
    with torch.no_grad():
        expected = model(images)[0]
    with contextlib.redirect_stdout(None):
        path = load_yolo(trainer.best).export(format=file_format, imgsz=64, verbose=False)
    if file_format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    else:
        found = torch.jit.load(path)(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


def test_faults_are_named(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"terms\.bckd\.gain: unknown key"):
        distill_trainer(checkpoint, terms={"bckd": {"gain": 1}})
    with pytest.raises(ConfigError, match="task: expected one of"):
        distill_trainer(checkpoint, task="pose")
    with pytest.raises(WeightsError, match="there is none at"):
        train(distill_trainer(tmp_path / "none.pt"), resolved, tmp_path)
    stranger = build("yolo11n", ("cat", "dog"))
    torch.save({"model": stranger, "train_args": {"task": "detect", "imgsz": 64}}, tmp_path / "stranger.pt")
    with pytest.raises(AdapterError, match=r"'disc', 'square'.*'cat', 'dog'"):
        train(distill_trainer(tmp_path / "stranger.pt"), resolved, tmp_path)


def test_a_loss_that_is_not_finite_once_takes_student_and_aligners_back(
    resolved: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """ultralytics copies the model for a new average then, in which hooks and teachers must not be."""
    kept: dict[str, Any] = {}

    class Poisoned(distill_trainer(checkpoint, terms={"bckd": {}, "fitnet": {}})):  # type: ignore[misc]
        def _handle_nan_recovery(self, epoch: int) -> bool:
            if epoch == 1 and not kept:
                self.loss = torch.tensor(float("nan"))
                with torch.no_grad():
                    for parameter in self.distiller.parameters():
                        parameter.fill_(float("nan"))
                kept["recovered"] = super()._handle_nan_recovery(epoch)
                kept["aligners"] = [bool(parameter.isfinite().all()) for parameter in self.distiller.parameters()]
                kept["hooks"] = sum(len(module._forward_hooks) for module in self.ema.ema.modules())
                kept["criterion"] = type(getattr(self.ema.ema, "criterion", None)).__name__
                return bool(kept["recovered"])
            return bool(super()._handle_nan_recovery(epoch))

    trainer = train(Poisoned, resolved, tmp_path, epochs=3)
    assert kept["recovered"]
    assert kept["aligners"]
    assert all(kept["aligners"])
    assert kept["hooks"] == 0
    assert kept["criterion"] != "DistillationCriterion"
    assert len(trainer.weight_log.epochs) == 3
    assert not any(module._forward_hooks for module in load_yolo(trainer.last).model.modules())


def test_callbacks_handed_on_by_a_launcher_are_not_doubled(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    kind = distill_trainer(checkpoint, terms={"bckd": {}})
    arguments = {**SMALL, "data": str(resolved), "model": str(student_yaml("yolo11n", tmp_path)), "project": str(tmp_path)}
    first = kind(overrides=arguments)
    second = kind(overrides=arguments, _callbacks=first.callbacks)
    for event in (
        "on_pretrain_routine_end",
        "on_train_epoch_start",
        "on_train_batch_end",
        "on_train_epoch_end",
        "teardown",
    ):
        own = [one for one in second.callbacks[event] if "DistillingTrainer" in getattr(one, "__qualname__", "")]
        assert len(own) == 1, event


def test_aligners_learn_by_the_settings_of_the_students_weights(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    kind = distill_trainer(checkpoint, terms={"fitnet": {}})
    trainer = train(kind, resolved, tmp_path, optimizer="SGD", lr0=0.05, momentum=0.8, weight_decay=0.01)
    groups = {group["param_group"]: group for group in trainer.optimizer.param_groups}
    for key in ("initial_lr", "momentum", "weight_decay", "nesterov"):
        assert groups["aligner"][key] == groups["weight"][key], key


def test_layers_that_enter_the_head_may_be_frozen_in_part(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    frozen = [f"model.{index}." for index in range(17)]  # the finest level is layer 16's
    trainer = train(distill_trainer(checkpoint, terms={"bckd": {}}), resolved, tmp_path, freeze=frozen)
    assert trainer.weight_log.epochs[0]["bckd"] > 0
    with pytest.raises(AdapterError, match="all of them are frozen"):
        train(distill_trainer(checkpoint, terms={"bckd": {}}), resolved, tmp_path / "all", freeze=23)


def test_heads_are_taught_as_the_task_weighs_them(resolved: Path, checkpoint: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, ...]] = []
    original = Distiller.weigh_heads

    def watch(self: Distiller, weights: Any) -> None:
        seen.append(tuple(weights))
        original(self, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "weigh_heads", watch)
        train(distill_trainer(checkpoint, terms={"bckd": {}}), resolved, tmp_path, "yolo26n", epochs=2)
    assert seen[0] == pytest.approx((0.8, 0.2))
    assert seen[-1] == pytest.approx((0.1, 0.9))


def test_services_of_ultralytics_settings_are_told_of_a_distilling_trainer(checkpoint: Path) -> None:
    """ultralytics looks for the word in the name of the class."""
    assert "Trainer" in distill_trainer(checkpoint, terms={"bckd": {}}).__name__
