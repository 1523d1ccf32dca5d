"""The doctor as a user calls it: exit codes, the file of findings, and one line for each fault of the input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkd.commands.doctor import main
from detkd.engines.run import run_config
from tests.engines.classes import TINY, configure_classes, write_pictures
from tests.engines.conftest import one_thread_for_a_module  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 8, "test": 4})


@pytest.fixture(scope="module")
def teacher(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learnt its colours."""
    train, optim = {"epochs": 8, "imgsz": 32, "batch": 8}, {"lr": 0.01, "warmup_epochs": 0, "schedule": "constant"}
    config = configure_classes(
        root, student={"model": "cnn", "width": 0.5}, train=train, optim=optim, output=tmp_path_factory.mktemp("runs")
    )
    return run_config(config)


@pytest.fixture
def write(root: Path, tmp_path: Path) -> Any:
    def written(**changes: Any) -> Path:
        tree = {
            "name": "student",
            "output": str(tmp_path / "runs"),
            "data": str(root),
            "student": TINY,
            "train": {"epochs": 200, "imgsz": 32, "batch": 8},
            "evaluate": ["test"],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**tree, **changes}))
        return tmp_path / "config.yaml"

    return written


def call(*arguments: object) -> int:
    """Its exit code; a fault of the input raises."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_sound_configuration_exits_with_0(write: Any, teacher: Path, capfd: Any, tmp_path: Path) -> None:
    config = write(distill={"teacher": {"weights": str(teacher / "student.safetensors")}, "terms": {"soft_kl": {}}})
    assert call("--config", config, "--json", tmp_path / "findings.json", "--seconds", "10") == 0
    printed = capfd.readouterr().out
    content = json.loads((tmp_path / "findings.json").read_text())
    assert printed.splitlines()[-1] == content["verdict"]
    assert printed.startswith("student\n")
    assert "gradient" in {finding["check"] for finding in content["findings"]}
    assert set(content["findings"][0]) == {"severity", "check", "symptom", "detail", "cause", "fix"}
    assert not (tmp_path / "runs").exists()


def test_an_error_exits_with_1_and_is_said_first(write: Any, capfd: Any, tmp_path: Path) -> None:
    config = write(distill={"teacher": {"model": "cnn"}, "terms": {"soft_kl": {"weight": 1e5}}, "balance": "none"})
    assert call("train.seed=1", "--config", config, "--seconds", "5", "--log", "json") == 1
    (line,) = capfd.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["event"] == "result"
    assert record["verdict"].startswith("Do not train like this")
    assert record["findings"][0]["severity"] == "error"
    assert {"term.drowns", "teacher.no_better"} <= {finding["check"] for finding in record["findings"]}
    assert not (tmp_path / "runs").exists()


def test_the_folder_of_a_finished_run_is_taken(teacher: Path, tmp_path: Path, capfd: Any) -> None:
    folder = Path(shutil.copytree(teacher, tmp_path / "finished"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert call("--config", folder, "--seconds", "5") == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert capfd.readouterr().out.startswith("finished\n")
