"""The report written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engines.test_kept import TEACHER, write
from tests.report.html.folders import write_comparison, write_results
from tests.tools.calling import call, refuse

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_reports_of_several_folders_are_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path / "run")
    write_comparison(tmp_path / "table", runs=False)
    assert call("report", tmp_path / "run", tmp_path / "table") == 0
    written = [tmp_path / name / "report.html" for name in ("run", "table")]
    assert capsys.readouterr().out.split() == list(map(str, written))
    assert all(path.read_text().startswith("<!doctype html>") for path in written)


def test_a_distilled_run_is_compared_with_the_student_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distilled, alone = write(tmp_path / "runs" / "distilled", distill=TEACHER), write(tmp_path / "elsewhere" / "alone")
    assert call("report", distilled) == 0
    assert "The student alone is that" not in (distilled / "report.html").read_text()
    assert call("report", distilled, "--baseline", alone) == 0
    assert "The student alone is that of the run alone" in (distilled / "report.html").read_text()
    beside = write(tmp_path / "runs" / "beside")
    assert call("report", distilled) == 0
    assert "The student alone is that of the run beside" in (distilled / "report.html").read_text()
    capsys.readouterr()
    (distilled / "report.html").unlink()
    other = write(tmp_path / "elsewhere" / "other", optim={"lr": 0.5})
    refuse(capsys, "optim.lr is 0.5 there", "report", distilled, "--baseline", other)
    refuse(capsys, "is not distilled itself", "report", beside, "--baseline", alone)
    assert not (distilled / "report.html").exists()


def test_a_folder_of_neither_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, "Finish the run", "report", tmp_path)
