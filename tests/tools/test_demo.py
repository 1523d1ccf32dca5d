"""`make demo` in small: the four steps, and a second call that reuses them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture
def demo(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", repository / "tools" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("teacher.yaml", "student.yaml"):
        tree = yaml.safe_load((module.CONFIGS / name).read_text())
        tree["train"] |= {"epochs": 1, "imgsz": 64, "batch": 4}
        (tmp_path / name).write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(module, "CONFIGS", tmp_path)
    monkeypatch.setattr(module, "COUNTS", {"train": 8, "val": 4, "test": 4})
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    monkeypatch.chdir(tmp_path)
    return module


def test_it_trains_three_models_compares_them_and_reuses_them(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.main()
    table = capsys.readouterr().out.split("Metrics on test")[-1]
    for title in ("teacher", "student alone", "student distilled"):
        assert title in table
    assert (tmp_path / "runs" / "demo.png").stat().st_size > 0
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/results.json")}
    assert set(results) == {"demo-teacher", "demo-student-alone", "demo-student-distilled"}
    assert results["demo-student-distilled"]["teachers"][0]["metrics"] == results["demo-teacher"]["student"]["metrics"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/student.pt")}
    demo.main()
    assert capsys.readouterr().out.count("reused") == 3
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/student.pt")}
