"""Services that draw the history of runs: TensorBoard, Weights & Biases and MLflow, where they are wanted and installed.

Both engines tell them the same, the rows of ``results.json``, after each epoch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

Log: TypeAlias = Callable[[Mapping[str, float], int], None]  # of an epoch's row, and its number from 1
PROJECT = "detkd"  # where services sort runs into projects


@contextmanager
def log_tensorboard(folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    """Write the events of a run to ``tensorboard/`` in its folder."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def log(row: Mapping[str, float], epoch: int) -> None:
            for key, value in row.items():
                writer.add_scalar(key, value, epoch)
            writer.flush()

        yield log


@contextmanager
def log_wandb(folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    """Tell Weights & Biases; its own environment variables, such as WANDB_PROJECT and WANDB_MODE, keep their meaning."""
    import wandb

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=name, dir=str(folder), config=dict(config)) as run:
        yield lambda row, epoch: run.log(dict(row), step=epoch)


@contextmanager
def log_mlflow(folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    """Tell MLflow; MLFLOW_TRACKING_URI says where it is, MLFLOW_EXPERIMENT_NAME which experiment."""
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    with mlflow.start_run(run_name=name):
        mlflow.log_dict(dict(config), "config.yaml")
        # Names of metrics may hold no brackets there.
        yield lambda row, epoch: mlflow.log_metrics(
            {re.sub(r"[^\w\-. /]", "", key): value for key, value in row.items()}, step=epoch
        )


LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any]], AbstractContextManager[Log]]] = {
    "tensorboard": log_tensorboard,
    "wandb": log_wandb,
    "mlflow": log_mlflow,
}  # by the name of the package


def missing_loggers(names: tuple[str, ...]) -> list[str]:
    """One line for each logger whose package is not installed."""
    return [
        f"loggers: {name} is not installed: pip install {name}, or leave it out."
        for name in names
        if find_spec(name) is None
    ]
