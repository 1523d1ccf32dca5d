"""What runs that Lightning trained leave behind, and trainings that are compared epoch by epoch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES, build_model
from detkd.engines.lightning.training import LAST_CHECKPOINT
from detkd.engines.tasks import task_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from detkd.config import RunConfig


def results(folder: Path) -> dict[str, Any]:
    """What a run found."""
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def tensors(folder: Path) -> dict[str, Tensor]:
    """Of the student that was best on the validation split."""
    return load_file(folder / "student.safetensors")


def last(folder: Path) -> dict[str, Tensor]:
    """Of the student after the last epoch."""
    state: dict[str, Tensor] = checkpoint_of(folder)["state_dict"]
    return state


def checkpoint_of(folder: Path) -> dict[str, Any]:
    """What a run goes on from."""
    content: dict[str, Any] = torch.load(folder / LAST_CHECKPOINT, weights_only=True)
    return content


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def train(config: RunConfig, folder: Path, *, live: bool) -> list[dict[str, float]]:
    """The losses of each epoch of a run on the views of the cache, beside the teacher or out of the cache."""
    torch.manual_seed(0)
    dataset, size, distill = task_of(config).load_data(config, ("train",)), config.train.imgsz, config.distill
    assert distill is not None
    student, _ = build_model(config.student, dataset.names, role="student", imgsz=size)
    teacher, _ = build_model(distill.all_teachers[0], dataset.names, role="teacher", imgsz=size)
    engine = FAMILIES[config.family].engine
    pictures = None if live else engine.training_views(config, dataset, student)
    distiller = build_distiller(student, [teacher], distill, size, pictures)
    return engine.train(student, distiller, config, dataset, folder, resume=False).history


def farthest(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The largest relative difference of a loss in any epoch."""
    losses = [name for name in one[0] if name.startswith("train/")]
    pairs = [(row[name], twin[name]) for row, twin in zip(one, other, strict=True) for name in losses]
    return max(abs(first - second) / max(abs(first), 1e-3) for first, second in pairs)
