"""Every Python block of the README and the docs runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detkd.adapters.ultralytics import import_ultralytics

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if "```python" in path.read_text())


def blocks(page: Path) -> list[str]:
    return [part.split("```")[0] for part in page.read_text(encoding="utf-8").split("```python\n")[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One after another in one scope, as a reader would; a training is checked for its arguments, not made."""
    ultralytics = import_ultralytics()
    from ultralytics.cfg import get_cfg

    trained = []

    def train(self: Any, *, trainer: Any, **arguments: Any) -> None:
        get_cfg(overrides=arguments)  # raises on an argument that ultralytics does not have
        trained.append(trainer)

    def cache_teacher(student: Any, teacher: Any, **arguments: Any) -> None:
        get_cfg(overrides={**student.overrides, **arguments})

    monkeypatch.setattr(ultralytics.YOLO, "train", train)
    monkeypatch.setattr("detkd.ultralytics.cache_teacher", cache_teacher)
    monkeypatch.chdir(tmp_path)  # where what it writes may lie
    scope: dict[str, Any] = {}
    code = blocks(page)
    for block in code:
        exec(compile(block, str(page), "exec"), scope)
    assert len(trained) == sum(".train(" in block for block in code)
    for trainer in trained:
        assert issubclass(trainer, ultralytics.engine.trainer.BaseTrainer)
    if page.name == "README.md":
        assert scope["student_logits"].grad is not None
    if page.name == "segmentation.md":
        assert scope["both"].item() == pytest.approx(0.96)
        assert scope["silent"] == 0
