"""Services that are told of epochs. Those whose packages are large are stood for by what they were called with."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detkd.report.loggers import LOGGERS, missing_loggers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROWS = ({"train/box": 0.5, "metrics/mAP50-95(B)": 0.25}, {"train/box": 0.25, "metrics/mAP50-95(B)": 0.75})


class Service(ModuleType):
    """A package of a service that keeps what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.said: list[tuple[Any, ...]] = []

    def log(self, row: dict[str, float], step: int) -> None:
        self.said.append((step, row))

    @contextlib.contextmanager
    def init(self, **how: Any) -> Iterator[Service]:
        self.said.append(("init", how))
        yield self
        self.said.append(("end",))

    def set_experiment(self, name: str) -> None:
        self.said.append(("experiment", name))

    @contextlib.contextmanager
    def start_run(self, run_name: str) -> Iterator[None]:
        self.said.append(("run", run_name))
        yield
        self.said.append(("end",))

    def log_dict(self, content: dict[str, Any], file: str) -> None:
        self.said.append((file, content))

    def log_metrics(self, row: dict[str, float], step: int) -> None:
        self.said.append((step, row))


def tell(name: str, folder: Path) -> None:
    with LOGGERS[name](folder, "student", {"train": {"seed": 1}}) as log:
        for epoch, row in enumerate(ROWS, start=1):
            log(row, epoch)


def test_tensorboard_reads_the_values_of_each_epoch(tmp_path: Path) -> None:
    tell("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for key in ROWS[0]:
        assert [(event.step, event.value) for event in events.Scalars(key)] == [(1, ROWS[0][key]), (2, ROWS[1][key])]


def test_wandb_gets_the_run_its_configuration_and_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("wandb")
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tell("wandb", tmp_path)
    how = {"project": "detkd", "name": "student", "dir": str(tmp_path), "config": {"train": {"seed": 1}}}
    assert service.said == [("init", how), (1, ROWS[0]), (2, ROWS[1]), ("end",)]


def test_mlflow_gets_names_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", service)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    tell("mlflow", tmp_path)
    assert service.said == [
        ("experiment", "cells"),
        ("run", "student"),
        ("config.yaml", {"train": {"seed": 1}}),
        (1, {"train/box": 0.5, "metrics/mAP50-95B": 0.25}),
        (2, {"train/box": 0.25, "metrics/mAP50-95B": 0.75}),
        ("end",),
    ]


def test_each_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkd.report.loggers.find_spec", lambda name: None if name != "tensorboard" else object())
    assert missing_loggers(("tensorboard", "wandb", "mlflow")) == [
        "loggers: wandb is not installed: pip install wandb, or leave it out.",
        "loggers: mlflow is not installed: pip install mlflow, or leave it out.",
    ]
