"""Every Python block of the README and the docs runs."""

from __future__ import annotations

from typing import Any

import pytest

from detkd.adapters.ultralytics import import_ultralytics
from tests.docs.pages import blocks


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}))
def test_code_runs(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
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
    code = blocks("python", page)
    for block in code:
        exec(compile(block.text, f"{block.page}:{block.line}", "exec"), scope)
    assert len(trained) == sum(".train(" in block.text for block in code)
    for trainer in trained:
        assert issubclass(trainer, ultralytics.engine.trainer.BaseTrainer)
    if page == "README.md":
        assert scope["student_logits"].grad is not None
    if page == "docs/drop_in_losses.md":
        assert all(parameter.grad is not None for parameter in scope["aligner"].parameters())
    if page == "docs/segmentation.md":
        assert scope["both"].item() == pytest.approx(0.96)
        assert scope["silent"] == 0
