"""Runs of a Faster R-CNN from configuration to results, alone and with teachers of both families; and of its own pupils."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from detkd.adapters.ultralytics import load_yolo
from detkd.engines.run import run_config
from detkd.errors import AdapterError
from detkd.report.console import TrainingProgress
from tests.engines.conftest import NAMES, TINY_RCNN, CutError, configure, configure_rcnn
from tests.engines.runs import last, results, tensors

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
ONCE = {"epochs": 1, "imgsz": 64, "batch": 4}


def run(data: Path, output: Path, *, resume: bool = False, **changes: Any) -> Path:
    return run_config(configure_rcnn(data, output=str(output), **changes), resume=resume)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def timeless(folder: Path) -> list[dict[str, float]]:
    return [{**row, "time": 0} for row in results(folder)["history"]]


def terms(row: dict[str, float]) -> set[str]:
    """Names of the distillation terms of an epoch."""
    return {name.removeprefix("train/") for name in row if name.startswith("train/")} - OWN


def plain_detector() -> FasterRCNN:
    """The tiny student as one writes it with torchvision alone."""
    features = mobilenet_v3_small(weights=None).features
    backbone = BackboneWithFPN(features, {"3": "0", "8": "1", "12": "2"}, [24, 48, 576], 32)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((5,), (10,), (20,), (41,)), ((0.5, 1.0, 2.0),) * 4),
        box_head=TwoMLPHead(32 * 7 * 7, 128),
        box_predictor=FastRCNNPredictor(128, 3),
    )


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained on labels alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = run(data, tmp_path_factory.mktemp("alone"))
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def distilled(data: Path, rcnn_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same student by a Faster R-CNN, with the default terms."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    kept = rcnn_teacher.read_bytes()
    folder = run(data, tmp_path_factory.mktemp("distilled"), distill={"teacher": {"weights": str(rcnn_teacher)}})
    assert rcnn_teacher.read_bytes() == kept
    torch.set_num_threads(before)
    return folder


def test_a_student_alone_leaves_a_checkpoint_that_needs_torchvision_alone(alone: Path) -> None:
    found = results(alone)
    assert (found["family"], found["teachers"], found["distill_weights"]) == ("torchvision", [], [])
    assert found["checkpoint"] == "student.safetensors"
    assert found["versions"]["pytorch-lightning"]
    assert len(found["student"]["metrics"]["val"]) == 14  # COCO's twelve, each class, and intervals
    assert set(found["student"]["metrics"]["val"]["per_class"]) == set(NAMES)
    assert found["student"]["gflops"] > 0
    assert [set(row) & {f"train/{name}" for name in OWN} for row in found["history"]] == [{f"train/{o}" for o in OWN}] * 2
    assert {path.name for path in alone.iterdir()} == {
        ".lock",
        "config.yaml", "curves.json", "detections.png", "lightning", "pictures", "report.html", "results.json",
        "student.safetensors", "training.png",
    }  # fmt: skip
    plain = plain_detector()
    plain.load_state_dict(tensors(alone))
    assert found["student"]["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_a_faster_rcnn_teaches_by_the_default_terms_and_leaves_nothing_of_itself(alone: Path, distilled: Path) -> None:
    found = results(distilled)
    for row, weights in zip(found["history"], found["distill_weights"], strict=True):
        assert terms(row) == set(weights) == {"pkd", "dkd", "bounded_box"}
        assert all(weights[name] > 0 for name in ("pkd", "dkd"))  # no box is matched yet, which bounded_box needs
        assert row["train/pkd"] > 0
    (teacher,) = found["teachers"]
    assert teacher["parameters"] > found["student"]["parameters"]
    assert set(teacher["metrics"]) == {"val"}
    plain_detector().load_state_dict(tensors(distilled))
    assert not same(last(distilled), last(alone))
    start, pulled = (results(folder)["history"][0]["train/loss_objectness"] for folder in (alone, distilled))
    assert start == pytest.approx(pulled, rel=0.05)  # from the same weights


def test_the_same_settings_give_the_same_student_also_where_a_run_was_cut_short(
    data: Path, rcnn_teacher: Path, distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: object, done: int, values: object) -> None:
        raise CutError

    distill = {"teacher": {"weights": str(rcnn_teacher)}}
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(TrainingProgress, "epoch", cut)
        run(data, tmp_path, distill=distill)
    assert not (tmp_path / "run" / "results.json").exists()
    run(data, tmp_path, distill=distill, resume=True)
    assert same(last(tmp_path / "run"), last(distilled))
    assert timeless(tmp_path / "run") == timeless(distilled)
    assert results(tmp_path / "run")["distill_weights"] == results(distilled)["distill_weights"]


def test_a_yolo_teaches_a_faster_rcnn(data: Path, checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    before = checkpoint.read_bytes()
    folder = run(
        data, tmp_path, distill={"teacher": {"weights": str(checkpoint)}, "terms": {"pkd": {}, "region_label": {}}}
    )
    assert checkpoint.read_bytes() == before
    found = results(folder)
    assert all(row["train/pkd"] > 0 and row["train/region_label"] > 0 for row in found["history"])
    assert found["teachers"][0]["parameters"] == sum(p.numel() for p in load_yolo(checkpoint).model.parameters())
    plain_detector().load_state_dict(tensors(folder))
    assert not same(last(folder), last(alone))


def test_a_faster_rcnn_teaches_a_yolo(data: Path, rcnn_teacher: Path, tmp_path: Path) -> None:
    def train(**distill: Any) -> Path:
        spec = {"teacher": {"weights": str(rcnn_teacher)}, **distill} if distill else None
        return run_config(configure(data, output=str(tmp_path), name=f"{len(distill)}", distill=spec, train=ONCE))

    folder, plain = train(terms={"pkd": {}, "detection_label": {}}), train()
    found = results(folder)
    assert (found["family"], found["checkpoint"]) == ("yolo", "student.pt")
    assert terms(found["history"][0]) >= {"pkd", "detection_label"}
    assert all(weight > 0 for weight in found["distill_weights"][0].values())
    students = [load_yolo(path / "student.pt").model.state_dict() for path in (folder, plain)]
    assert students[0].keys() == students[1].keys()
    assert not same(*students)


def test_teachers_of_both_families_teach_together(data: Path, rcnn_teacher: Path, checkpoint: Path, tmp_path: Path) -> None:
    teachers = [{"weights": str(checkpoint)}, {"weights": str(rcnn_teacher)}]
    distill = {"teachers": teachers, "ensemble": "ca_mkd", "terms": {"pkd": {}, "region_label": {}}}
    found = results(run(data, tmp_path, distill=distill, train=ONCE))
    assert all(found["history"][0][f"train/{name}"] > 0 for name in ("pkd", "region_label"))
    sizes = [teacher["parameters"] for teacher in found["teachers"]]
    assert sizes[0] == sum(p.numel() for p in load_yolo(checkpoint).model.parameters())
    assert sizes[1] == sum(value.numel() for name, value in load_file(rcnn_teacher).items() if "running" not in name) - len(
        [name for name in load_file(rcnn_teacher) if "num_batches" in name]
    )
    # A term that only one of the two can teach is refused.
    with pytest.raises(AdapterError, match=r"teacher with a second stage for `dkd`.* Use `region_label`"):
        run(data, tmp_path, name="misfit", distill={**distill, "terms": {"dkd": {}}})
    assert not (tmp_path / "misfit").exists()


def test_a_term_stops_when_its_schedule_says_so(data: Path, rcnn_teacher: Path, tmp_path: Path) -> None:
    given = {"dkd": {"schedule": {"stop": 0.5}}, "pkd": {}}
    found = results(run(data, tmp_path, distill={"teacher": {"weights": str(rcnn_teacher)}, "terms": given}))
    first, second = found["distill_weights"]
    assert first["dkd"] > 0 == second["dkd"]
    assert found["history"][1]["train/dkd"] == 0
    assert second["pkd"] > 0


def test_weights_are_learnt_where_that_is_asked_for(data: Path, rcnn_teacher: Path, tmp_path: Path) -> None:
    distill = {"teacher": {"weights": str(rcnn_teacher)}, "balance": "uncertainty", "terms": {"pkd": {}, "dkd": {}}}
    folder = run(data, tmp_path, distill=distill)
    first, second = results(folder)["distill_weights"]
    assert all(first[name] > 0 and first[name] != second[name] for name in ("pkd", "dkd"))
    assert tensors(folder).keys() == plain_detector().state_dict().keys()


def test_terms_without_parameters_of_their_own_train_in_silence(
    data: Path, rcnn_teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(data, tmp_path, distill={"teacher": {"weights": str(rcnn_teacher)}, "terms": {"dkd": {}}}, train=ONCE)
    assert capfd.readouterr().err == ""


def test_a_student_goes_on_from_a_checkpoint_of_another_size(data: Path, alone: Path, tmp_path: Path) -> None:
    student = {"weights": str(alone / "student.safetensors")}
    folder = run(data, tmp_path, student=student, train={"epochs": 1, "imgsz": 96, "batch": 4})
    assert results(folder)["student"]["gflops"] > 1.5 * results(alone)["student"]["gflops"]
    assert TINY_RCNN["model"] in (folder / "student.safetensors").read_bytes()[:4096].decode("ascii", "ignore")


def test_an_average_of_a_detector_teaches_it(data: Path, tmp_path: Path) -> None:
    found = results(run(data, tmp_path, distill={"teacher": {"ema": 0.9}, "terms": {"pkd": {}}}, train=ONCE))
    assert found["history"][-1]["train/pkd"] > 0
    assert found["teachers"][0]["parameters"] == found["student"]["parameters"]
