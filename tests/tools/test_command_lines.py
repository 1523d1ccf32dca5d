"""The tools as a user calls them: options and overrides in any order, one line for each fault, exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ["--config", "configs/yolo/yolov5n-femto_from_yolov5n.yaml"]
GIVEN = ["data=none.yaml", "distill.teacher.weights=none.pt"]


def call(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"tools/{tool}.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=None)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("train_det", [*CONFIG, *GIVEN]),
        ("train_det", [*GIVEN, *CONFIG, "train.seed=1"]),
        ("compare", [*CONFIG, "--seeds", "0,1", "--only", "bckd", *GIVEN]),
        ("compare", [GIVEN[0], *CONFIG, "--jobs", "2", GIVEN[1]]),
    ],
)
def test_a_missing_data_set_is_one_line(tool: str, arguments: list[str], tmp_path: Path) -> None:
    done = call(tool, *arguments, f"output={tmp_path / 'runs'}")
    assert done.returncode == 2, done.stderr
    assert "none.yaml" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["--seeds", "0,x"], ["--only", "nobody"]])
def test_wrong_lists_are_refused(arguments: list[str]) -> None:
    done = call("compare", *CONFIG, *arguments, *GIVEN)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert arguments[1] in done.stderr
