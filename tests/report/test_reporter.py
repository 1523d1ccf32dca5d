"""Who is spoken to: a person, a program or nobody, and of several processes by the first one alone."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.table import Table

from detkd.report.reporter import SILENT, ConsoleReporter, JsonReporter, Reporter, reporter, reporting


def speak() -> None:
    """All that can be said."""
    told = reporter()
    told.note("student: from scratch")
    with told.training("run", 2, "val AP", "AP") as training:
        training.step(0.5)
        training.epoch(1, {"epoch": 1, "train/box": 0.5, "AP": math.nan})
    with told.counting("runs", 3, done=1, unit="runs") as counting:
        counting.finished("alone-0")
    told.result({"event": "result", "folder": "runs/run"}, Table("model", title="Metrics"), "runs/run/student.pt")


def test_programs_read_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with reporting(JsonReporter(out)):
        speak()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "epoch", "run": "run", "epoch": 1, "epochs": 2, "train/box": 0.5, "AP": None},
        {"event": "finished", "name": "alone-0", "done": 2, "total": 3},
        {"event": "result", "folder": "runs/run"},
    ]
    assert capsys.readouterr() == ("", "student: from scratch\n")


def test_people_read_sentences_tables_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    speak()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["student: from scratch", "run: epoch 1/2  val AP nan", "alone-0: finished, 2 of 3"]
    assert "Metrics" in lines[3]
    assert lines[-1] == "runs/run/student.pt"


def test_silence_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting(SILENT):
        speak()
    assert capfd.readouterr() == ("", "")


def test_of_several_processes_the_first_one_speaks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    speak()
    assert capfd.readouterr() == ("", "")


def test_a_reporter_takes_over_until_the_block_ends_also_where_it_raises() -> None:
    before: Reporter = reporter()
    assert isinstance(before, ConsoleReporter)
    with pytest.raises(ZeroDivisionError), reporting(SILENT):
        assert reporter() is SILENT
        raise ZeroDivisionError
    assert reporter() is before
