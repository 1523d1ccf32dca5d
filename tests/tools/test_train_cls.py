"""The command line that trains classifiers: one line for each fault and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from detkd.data.class_folders import PictureDataset
from detkd.engines.classification import evaluate_classifier
from detkd.model_config import ModelConfig
from detkd.models.classifier_files import build_model, load_model, save_model
from tests.engines.classes import TINY, write_pictures
from tests.tools.calling import call as call_here
from tests.tools.calling import refuse
from tests.tools.test_command_lines import call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = {
        "name": "run",
        "output": str(tmp_path / "runs"),
        "data": str(write_pictures(tmp_path / "data", {"train": 4, "test": 2})),
        "student": TINY,
        "distill": None,
        "train": {"epochs": 1, "imgsz": 32, "batch": 4},
        "evaluate": ["test"],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "config.yaml"


def test_it_trains_and_names_what_it_wrote(config: Path, tmp_path: Path) -> None:
    done = call("train_cls", "--config", str(config))
    assert done.returncode == 0, done.stderr
    for name in ("student.safetensors", "results.json", "reliability.png", "training.png"):
        assert str(tmp_path / "runs" / "run" / name) in done.stdout.replace("\n", "")
        assert (tmp_path / "runs" / "run" / name).is_file()


def test_evaluating_its_student_gives_the_numbers_of_the_run(config: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "runs" / "run", str(tmp_path / "data")
    assert call("train_cls", "--config", str(config)).returncode == 0
    told = json.loads((folder / "results.json").read_text())["student"]["metrics"]["test"]
    command = ("evaluate", "--weights", str(folder / "student.safetensors"), "--data", data)
    done = call(*command, "--json", str(tmp_path / "test.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "test.json").read_text())
    assert found["intervals"]["accuracy"] == pytest.approx(told.pop("intervals")["accuracy"])
    assert {key: found[key] for key in told} == pytest.approx(told)
    assert sum(one["accuracy"] for one in found["per_class"].values()) / 3 == pytest.approx(told["accuracy"])
    for option, value, says in (("--split", "dev", "val"), ("--iou-type", "segm", "no objects")):
        done = call(*command, option, value)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_a_val_without_a_folder_is_the_share_that_it_was_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another share most pictures would be ones that the student has learnt from."""
    data, weights = write_pictures(tmp_path / "data", {"train": 10, "test": 2}), tmp_path / "student.safetensors"
    save_model(build_model(ModelConfig(**TINY), ("blue", "green", "red"), role="student", imgsz=32)[0], weights)
    command = ("--weights", weights, "--data", data, "--split", "val", "--json", tmp_path / "out.json")
    refuse(capsys, "--held-out: expected the share", "evaluate", *command)
    refuse(capsys, "between 0 and 1", "evaluate", *command, "--held-out", 1)
    assert call_here("evaluate", *command, "--held-out", 0.3) == 0
    expected = evaluate_classifier(load_model(weights), PictureDataset.load(data, 32, held_out=0.3), "val")
    assert json.loads((tmp_path / "out.json").read_text())["NLL"] == pytest.approx(expected["NLL"])
    refuse(capsys, "--held-out: only for --split val", "evaluate", *command[:4], "--held-out", 0.3)
    own = write_pictures(tmp_path / "own", {"train": 4, "val": 2, "test": 2})
    refuse(capsys, "has a folder of `val`", "evaluate", *command[:3], own, *command[4:], "--held-out", 0.3)


@pytest.mark.parametrize(
    ("tool", "override", "says"),
    [
        ("train_cls", "student.model=resnet19", "resnet19 is trained by detkd train-det"),
        ("train_det", "train.seed=1", "cnn is trained by detkd train-cls"),
        ("train_cls", "data=nowhere", "nowhere"),
        ("train_cls", "student.width=9", "student.width"),
    ],
)
def test_a_fault_is_one_line(tool: str, override: str, says: str, config: Path, tmp_path: Path) -> None:
    done = call(tool, "--config", str(config), override)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "runs").exists()
