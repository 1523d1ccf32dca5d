"""The command line that exports: its table, its record, and one line for each fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.calling import detkd


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_it_tells_people_and_programs_what_was_measured(unet_teacher: Path, tmp_path: Path) -> None:
    given = ("export", "--weights", unet_teacher, "--format", "torchscript", "--output", tmp_path / "out")
    people, program = detkd(*given), detkd(*given, "--log", "json")
    assert people.returncode == program.returncode == 0, people.stderr
    assert "largest difference" in people.stdout
    path = tmp_path / "out" / "student.torchscript"
    assert people.stdout.splitlines()[-1] == str(path)
    (line,) = program.stdout.splitlines()
    record = json.loads(line)
    assert record["event"] == "result"
    assert record["milliseconds"] > 0
    exported = record["formats"]["torchscript"]
    assert exported["path"] == str(path)
    assert exported["difference"] < 1e-5
    assert path.is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "none.pt"], "there is none at none.pt"),
        (["--weights", "none.pt", "--format", "onnx,coreml"], "expected some of onnx,torchscript,torch_export"),
        ([], "the following arguments are required: --weights"),
    ],
)
def test_each_fault_is_one_line(arguments: list[str], says: str) -> None:
    done = detkd("export", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert says in line
