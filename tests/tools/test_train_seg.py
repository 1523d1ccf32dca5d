"""The command lines of U-Nets from beginning to end on the built-in set, and one line for each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from detkd.data.synthetic import CLASSES, write_synthetic
from tests.engines.conftest import TINY, write_unet
from tests.engines.segmented import TINY_UNET
from tests.tools.calling import call, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in set in small."""
    return write_synthetic(tmp_path_factory.mktemp("built-in") / "set", {"train": 4, "val": 2, "test": 2}, size=64)


@pytest.fixture(scope="module")
def shapes_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of its classes."""
    return write_unet(tmp_path_factory.mktemp("teacher"), tuple(CLASSES))


@pytest.fixture
def write(built_in: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a run; `changes` replace whole sections."""

    def write_config(**changes: Any) -> Path:
        tree = {
            "name": "run",
            "output": str(tmp_path / "runs"),
            "data": str(built_in),
            "student": TINY_UNET,
            "distill": None,
            "train": {"epochs": 1, "imgsz": 64, "batch": 2},
            "evaluate": ["val", "test"],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**tree, **changes}))
        return tmp_path / "config.yaml"

    return write_config


def test_a_teacher_and_its_student_are_trained_and_a_finished_run_is_kept(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train_seg", "--config", write(), "name=teacher", "student.width=0.5") == 0
    weights = tmp_path / "runs" / "teacher" / "student.safetensors"
    given = ["--config", write(distill={"teacher": {"weights": str(weights)}})]  # the default terms
    capsys.readouterr()
    assert call("train_seg", *given) == 0
    printed = capsys.readouterr().out
    for heading in ("mIoU", "Dice", "boundary_F1", "Metrics on test", "run: epoch 1/1  val mask AP"):
        assert heading in printed
    folder = tmp_path / "runs" / "run"
    results = json.loads((folder / "results.json").read_text())
    assert results["data"]["images"] == {"train": 4, "val": 2, "test": 2}
    assert set(results["history"][0]) >= {"train/pixel_kl", "train/pixel_cwd"}
    assert set(results["student"]["metrics"]) == {"val", "test"}
    assert set(results["student"]["metrics"]["test"]["per_class"]) == set(CLASSES)
    teacher = json.loads((tmp_path / "runs" / "teacher" / "results.json").read_text())
    assert results["teachers"][0]["metrics"] == teacher["student"]["metrics"]
    assert [line.split("/")[-1] for line in printed.splitlines()[-5:]] == [
        "student.safetensors", "results.json", "training.png", "segments.png", "report.html",
    ]  # fmt: skip
    assert call("train_seg", *given) == 2
    assert "holds a finished one" in capsys.readouterr().err


def test_two_recipes_are_compared_by_masks_and_pixels(
    write: Callable[..., Path], shapes_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(name="table", distill={"teacher": {"weights": str(shapes_teacher)}}, evaluate=["val"])
    assert call("compare", "--config", config, "--seeds", "0", "--only", "features", "--jobs", "2") == 0
    folder = tmp_path / "runs" / "table"
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(folder)
    report = json.loads((folder / "comparison.json").read_text())
    assert report["metrics"] == ["AP", "AP50", "mIoU", "Dice", "boundary_F1"]
    assert list(report["recipes"]) == ["alone", "features"]
    assert {"pkd", "classes", "dice", "boundary"} == set(report["recipes"]["features"]["final_terms"])
    alone, features = (
        json.loads((folder / name / "results.json").read_text())["student"]["metrics"]["val"]
        for name in ("alone-0", "features-0")
    )
    for metric in ("mIoU", "Dice"):
        assert report["recipes"]["features"][metric] == [features[metric]]
        gained = report["recipes"]["features"]["difference"][metric]["mean"]
        assert gained == pytest.approx(features[metric] - alone[metric])
    table = (folder / "comparison.md").read_text()
    assert "| mIoU gained (95 %) | Dice gained (95 %) |" in table
    assert "| features |" in table


def test_a_student_trains_from_the_cache_of_its_teacher(
    write: Callable[..., Path], shapes_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"weights": str(shapes_teacher), "cache": str(tmp_path / "cache"), "views": 1}
    config = write(distill={"teacher": given}, evaluate=["val"])
    assert call("train_seg", "--config", config) == 2
    assert "Make it with detkd cache-teacher" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert call("cache_teacher", "--config", config) == 0
    assert "4 images x (1 full) views" in capsys.readouterr().out
    assert call("train_seg", "--config", config) == 0
    assert "run: epoch 1/1" in capsys.readouterr().out
    assert call("train_seg", "--config", config, "name=stale", "segment.pictures=tiles") == 2
    assert "input.mode is 'fit' there and 'tiles' here" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "stale").exists()


def test_each_fault_is_one_line_and_nothing_is_written(
    write: Callable[..., Path],
    built_in: Path,
    data: Path,
    shapes_teacher: Path,
    unet_teacher: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def taught(weights: Path, terms: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return {"teacher": {"weights": str(weights)}, **({} if terms is None else {"terms": terms}), **more}

    unknown = {"segment": {"picture": "fit"}}
    detector = {"student": TINY, "data": str(data), "evaluate": ["val"]}
    faults: list[tuple[str, dict[str, Any], str]] = [
        ("train_seg", {"student": TINY}, "student.model: yolov5n.yaml is trained by detkd train-det"),
        ("train_det", {}, "student.model: unet is trained by detkd train-seg"),
        ("train_seg", unknown, "segment.picture: unknown key; got 'fit'"),
        ("train_seg", {"segment": {"labelled": 0}}, "segment.labelled: input should be greater than 0"),
        ("train_seg", {"segment": {"instances": {"threshold": 2}}}, "segment.instances.threshold"),
        ("train_seg", {"student": {"model": "unet_resnet19"}}, "Close to it: ['unet_resnet18'"),
        ("train_seg", {"student": {**TINY_UNET, "depth": 1.0}}, "student.depth: a U-Net has none"),
        ("train_seg", {"train": {"epochs": 1, "imgsz": 40, "batch": 2}}, "a multiple of 16 pixels"),
        ("train_seg", {"data": str(tmp_path / "none.yaml")}, "Expected a data.yaml"),
        ("train_seg", {"trainer": {"lr0": 0.1}}, "trainer.lr0: unknown to Lightning's Trainer"),
        ("train_seg", {"augment": [{"HorizontalFlop": {}}]}, "HorizontalFlop"),
        ("train_seg", {"distill": taught(tmp_path / "none.safetensors")}, "Expected a weights file"),
        ("train_seg", {"distill": taught(shapes_teacher, {"bckd": {}})}, "A segmenter learns by"),
        ("train_seg", {"distill": taught(unet_teacher)}, "classes"),  # of discs alone
        ("train_seg", {"evaluate": ["none"]}, "expected a split `none`"),
        ("train_det", {**detector, "distill": taught(shapes_teacher)}, "Segmenters teach segmenters"),
    ]
    for tool, changes, fault in faults:
        refuse(capsys, fault, tool, "--config", write(**changes))
        assert not (tmp_path / "runs").exists(), changes
