"""Faults planted in real trainings of a few steps, and each of them named."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from detkd.doctor import gradients, wiring
from detkd.doctor.gradients import check_gradients
from detkd.doctor.observing import Observation, observe
from detkd.doctor.wiring import check_wiring
from detkd.engines.distillation import build_distiller
from detkd.engines.run import build_models
from detkd.engines.tasks import task_of
from tests.doctor.conftest import by_code
from tests.engines.classes import configure_classes, write_pictures
from tests.engines.conftest import configure, configure_rcnn
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.config import RunConfig

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")


def watch(config: RunConfig, steps: int = 2, *, plant: Any = None) -> Observation:
    """Train some steps of a run, after a fault was planted between its student and its distiller."""
    dataset = task_of(config).load_data(config)
    student, teachers, distiller = build_models(config, dataset)
    if plant is not None:
        student, distiller = plant(student, teachers, distiller)
    return observe(student, distiller, config, dataset, steps=steps)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 4, "test": 2})


@pytest.fixture(scope="module")
def classes(pictures: Path) -> Any:
    """A classifier that learns from a wider one with statistics, which is as untrained as it is."""

    def configured(**changes: Any) -> RunConfig:
        distill = {"teacher": {"model": "cnn", "width": 0.5}, "terms": {"soft_kl": {}, "fitnet": {}}}
        return configure_classes(pictures, **{"distill": {**distill, **changes.pop("distill", {})}, **changes})

    return configured


def test_a_sound_yolo_is_found_sound(data: Path, checkpoint: Path) -> None:
    distill = {"teacher": {"weights": str(checkpoint)}, "terms": {"bckd": {}, "pkd": {}}}
    config = configure(data, distill=distill, train={"epochs": 4, "imgsz": 64, "batch": 2})
    seen = watch(config, steps=3)
    assert len(seen.seconds) == 1  # the third step is of the second epoch
    assert min(seen.seconds) > 0
    assert seen.failure is None
    assert not seen.left_out
    assert not seen.unmoved
    assert {count for batch in seen.calls for own in batch for count in own.values()} == {1}
    assert len(seen.calls) == 3
    assert [finding.severity for finding in check_wiring(seen)] == ["ok"]
    assert not [finding for finding in check_gradients(seen, config.distill) if finding.check == "term.silent"]


def test_gradients_are_those_of_the_losses_themselves(classes: Any) -> None:
    """Doubling a fixed weight doubles the pull, and leaves the unweighted norm as it is."""
    one, two = (
        watch(classes(distill={"terms": {"class_label": {"weight": weight}}, "balance": "none"}), steps=1)
        for weight in (1.0, 2.0)
    )
    assert two.pulls["class_label"][0] == pytest.approx(2 * one.pulls["class_label"][0], rel=1e-4)
    assert one.norms["class_label"] == pytest.approx(two.norms["class_label"], rel=1e-4)


def test_a_huge_weight_is_named(classes: Any) -> None:
    config = classes(distill={"terms": {"soft_kl": {"weight": 1e4}}, "balance": "none"})
    found = by_code(check_gradients(watch(config), config.distill))
    assert found["term.drowns"].severity == "error"
    assert "gradient_ratio" in found["term.drowns"].fix
    assert "`soft_kl`" in found["term.drowns"].detail
    balanced = classes(distill={"terms": {"soft_kl": {}}})
    seen = watch(balanced, steps=4)
    assert seen.pulls["soft_kl"][0] == pytest.approx(1.0, rel=1e-4)  # its share, as just measured
    assert not {"term.drowns", "term.heavy"} & set(by_code(check_gradients(seen, balanced.distill)))


def test_a_tiny_weight_is_named(classes: Any) -> None:
    config = classes(distill={"terms": {"soft_kl": {"weight": 1e-6}}, "balance": "none"})
    assert "term.faint" in by_code(check_gradients(watch(config), config.distill))


def test_a_softmax_over_one_class_is_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 4, "test": 2})
    for split in ("train", "test"):
        for name in ("green", "red"):
            for path in (root / split / name).iterdir():
                path.unlink()
    distill = {"teacher": {"model": "cnn", "width": 0.5}, "terms": {"soft_kl": {}, "at": {}}}
    config = configure_classes(root, distill=distill)
    found = check_gradients(watch(config), config.distill)
    silent = by_code(found)["term.silent"]
    assert silent.severity == "error"
    assert "`soft_kl`" in silent.detail
    assert "softmax over one class" in silent.cause
    assert by_code(found)["task.silent"].severity == "error"
    assert not any("`at`" in finding.detail for finding in found if finding.check == "term.silent")


def test_a_term_that_its_schedule_holds_at_nothing_is_a_note(classes: Any) -> None:
    config = classes(distill={"terms": {"soft_kl": {}, "at": {"schedule": {"warmup": 2}}}})
    found = by_code(check_gradients(watch(config, steps=1), config.distill))
    assert found["term.idle"].severity == "note"
    assert "`at`" in found["term.idle"].detail


def test_features_beside_the_way_to_the_loss_are_named(classes: Any) -> None:
    """An adapter that hands out copies: gradients end at them."""

    def copied(student: nn.Module, teachers: Any, distiller: Any) -> Any:
        adapter = distiller.adapters[0]
        take = adapter.take_outputs

        def take_copies() -> Any:
            outputs = take()
            return replace(outputs, features=tuple(feature.clone() for feature in outputs.features))

        adapter.take_outputs = take_copies
        return student, distiller

    found = by_code(check_gradients(watch(classes(), plant=copied), classes().distill))
    assert found["balance.blind"].severity == "error"
    assert "take_outputs" in found["balance.blind"].fix
    assert "balance.blind" not in by_code(check_gradients(watch(classes()), classes().distill))


def test_a_term_that_pulls_against_the_labels_is_named(classes: Any) -> None:
    """The teacher says of every picture what it is not."""

    def contradict(student: nn.Module, teachers: list[nn.Module], distiller: Any) -> Any:
        def lie(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            share = inputs[0].mean((2, 3)) if isinstance(inputs[0], torch.Tensor) else torch.stack(inputs[0]).mean((2, 3))
            return -40 * (share[:, [2, 1, 0]] - share.mean(1, keepdim=True))  # blue, green, red are the classes

        teachers[0].get_submodule(teachers[0].taps.head).register_forward_hook(
            lambda module, inputs, output: lie(module, seen, output)
        )
        seen: list[Any] = [None]
        teachers[0].register_forward_pre_hook(lambda module, inputs: seen.__setitem__(0, inputs[0]))
        return student, distiller

    config = classes(distill={"terms": {"soft_kl": {"temperature": 1.0}}})
    found = by_code(check_gradients(watch(config, plant=contradict), config.distill))
    assert found["term.opposes"].severity == "warning"
    assert "cosine -" in found["term.opposes"].detail


def test_a_training_that_is_refused_is_named_with_the_reason(classes: Any) -> None:
    def broken(student: nn.Module, teachers: Any, distiller: Any) -> Any:
        with torch.no_grad():
            next(student.parameters()).fill_(float("nan"))
        return student, distiller

    seen = watch(classes(), steps=9, plant=broken)  # an epoch has two steps, and its end looks at the losses
    found = by_code(check_wiring(seen))["step.failed"]
    assert found.severity == "error"
    assert "Expected finite losses" in found.detail
    assert "gradient.not_finite" in by_code(check_gradients(seen, classes().distill))


def test_nan_is_named() -> None:
    seen = Observation(task=[1.0], places=[1.0], norms={"soft_kl": [float("nan")]}, calls=[[{}]])
    config = configure_classes("unused", distill={"teacher": {}, "terms": {"soft_kl": {}}})  # type: ignore[arg-type]
    assert [finding.check for finding in check_gradients(seen, config.distill)] == ["gradient.not_finite"]


def test_aligners_that_the_optimizer_lacks_are_named(classes: Any) -> None:
    """A distiller that makes its aligners when they are first needed, which is after the optimizer."""

    def remake(student: nn.Module, teachers: Any, distiller: Any) -> Any:
        aligners = distiller.teacher_terms[0].aligners
        made: list[bool] = []

        def make(*_: Any) -> None:
            if not made:
                made.append(True)
                aligners["fitnet"] = copy.deepcopy(aligners["fitnet"])

        distiller.register_forward_pre_hook(make)
        return student, distiller

    found = by_code(check_wiring(watch(classes(), plant=remake)))
    assert found["aligner.left_out"].severity == "error"
    assert "aligners.fitnet" in found["aligner.left_out"].detail
    assert "before the optimizer" in found["aligner.left_out"].fix
    assert not {"aligner.left_out", "aligner.unmoved"} & set(by_code(check_wiring(watch(classes()))))


def test_an_aligner_that_learns_nothing_is_named(classes: Any) -> None:
    config = classes(distill={"terms": {"soft_kl": {}, "fitnet": {"schedule": {"warmup": 2}}}})
    found = by_code(check_wiring(watch(config, steps=1)))
    assert found["aligner.unmoved"].severity == "warning"
    assert "fitnet" in found["aligner.unmoved"].detail


@pytest.mark.parametrize("family", ["yolo", "rcnn", "unet"])
def test_hooks_on_a_copy_never_fire(
    family: str, data: Path, checkpoint: Path, rcnn_teacher: Path, discs: Path, unet_teacher: Path
) -> None:
    config = {
        "yolo": lambda: configure(data, distill={"teacher": {"weights": str(checkpoint)}, "terms": {"pkd": {}}}),
        "rcnn": lambda: configure_rcnn(data, distill={"teacher": {"weights": str(rcnn_teacher)}, "terms": {"pkd": {}}}),
        "unet": lambda: configure_unet(discs, distill={"teacher": {"weights": str(unet_teacher)}, "terms": {"pkd": {}}}),
    }[family]()

    def copied(student: nn.Module, teachers: Any, distiller: Any) -> Any:
        return copy.deepcopy(student), distiller

    found = by_code(check_wiring(watch(config, plant=copied)))
    assert found["hooks.never"].severity == "error"
    assert "the very model that trains" in found["hooks.never"].fix


def test_a_module_that_runs_twice_a_step_is_named(discs: Path, unet_teacher: Path) -> None:
    """A student whose forward pass is run once more, as one does who measures something in passing."""

    def doubled(student: nn.Module, teachers: Any, distiller: Any) -> Any:
        network: Any = student.network
        busy: list[bool] = []

        def again(module: nn.Module, inputs: Any, output: Any) -> None:
            if not busy:
                busy.append(True)
                network(*inputs)
                busy.clear()

        network.register_forward_hook(again)
        return student, distiller

    config = configure_unet(discs, distill={"teacher": {"weights": str(unet_teacher)}, "terms": {"pkd": {}}})
    found = by_code(check_wiring(watch(config, plant=doubled)))
    assert found["hooks.repeated"].severity == "error"
    assert "`network` ran 2 times" in found["hooks.repeated"].detail
    assert "hooks" in by_code(check_wiring(watch(config)))


def test_a_balance_that_looks_ahead_is_no_second_run(classes: Any) -> None:
    config = classes(distill={"terms": {"soft_kl": {}}, "balance": "meta", "held_out": 0.2})
    seen = watch(config, steps=3)
    assert [finding.severity for finding in check_wiring(seen)] == ["ok"]
    assert seen.pulls["soft_kl"]


def test_it_stops_in_time_and_leaves_no_hook(classes: Any) -> None:
    config = classes()
    dataset = task_of(config).load_data(config)
    student, _, distiller = build_models(config, dataset)
    assert distiller is not None
    seen = observe(student, distiller, config, dataset, steps=100, seconds=0)
    assert len(seen.calls) == 1
    assert not distiller._forward_hooks
    assert not distiller.balance._forward_hooks
    assert not _global_optimizer_post_hooks
    assert not any(module._forward_hooks for module in student.modules())


def test_a_student_alone_is_watched_too(pictures: Path) -> None:
    seen = watch(configure_classes(pictures, distill=None), steps=3)
    assert len(seen.seconds) == 2
    assert not seen.calls
    assert not check_wiring(seen)


def test_every_kind_has_a_cause_and_a_fix() -> None:
    for kind in (*gradients.KINDS, *wiring.KINDS):
        assert kind.cause
        assert kind.fix


def test_a_distiller_of_other_aligners_is_built_alike(classes: Any) -> None:
    config = classes()
    dataset = task_of(config).load_data(config)
    student, teachers, _ = build_models(config, dataset)
    distiller = build_distiller(student, teachers, config.distill, config.train.imgsz)
    assert distiller.adapters[0].model is student
    assert distiller.adapters[1].model is teachers[0]
