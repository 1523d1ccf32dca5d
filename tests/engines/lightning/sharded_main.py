"""Trains several students one after another under torchrun, and saves what each process ended each run with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from detkd.data.detection import DetectionDataset
from detkd.data.segmentation import SegmentationDataset
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES
from detkd.engines.lightning.sharding import whole
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model
from tests.engines.conftest import NAMES, TINY_RCNN, configure_rcnn
from tests.engines.lightning.detectors import FeatureDistiller, MeanDetector
from tests.engines.lightning.segmenter_main import build as build_unet
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from detkd.config import RunConfig

# A rate at which rounding stays rounding, and a momentum that a resumed run must have, too.
SGD = {"name": "sgd", "lr": 0.02, "warmup_epochs": 0, "schedule": "constant", "clip": 1.0}
RCNN_TERMS: dict[str, Any] = {"fitnet": {}, "mgd": {}, "dkd": {}, "bounded_box": {}}
UNET_TERMS: dict[str, Any] = {"pixel_kl": {}, "fitnet": {"schedule": {"stop": 1.0}}}


def build_rcnn(width: float) -> nn.Module:
    """A Faster R-CNN with a pyramid."""
    torch.manual_seed(round(100 * width))
    model: nn.Module = build_model(ModelConfig(**TINY_RCNN | {"width": width}), NAMES, role="student", imgsz=64)[0]
    return model


def models(kind: str) -> tuple[nn.Module, nn.Module]:
    """A student and a wider teacher of a kind."""
    if kind == "mean":
        return MeanDetector(8), MeanDetector(12)
    build, width = (build_rcnn, 0.125) if kind == "rcnn" else (build_unet, 0.25)
    student: Any = build(width)
    # Its weights stay as they lie in memory, in rows with or without sharding: a model from scratch magnifies rounding. A
    # detector finds all regions alike and chooses among them, and statistics of one picture are of few numbers.
    student.to = lambda *_, **__: student
    return student, build(2 * width)


def configure(job: dict[str, Any]) -> RunConfig:
    """The run of a job."""
    kind, processes = job["kind"], int(os.environ.get("WORLD_SIZE", "1"))
    terms = RCNN_TERMS if kind == "rcnn" else UNET_TERMS
    balance = job.get("balance", "gradient_ratio")
    distill = {"teacher": {"weights": "unused.safetensors"}, "terms": terms, "balance": balance}
    changes = {
        "distill": None if kind == "mean" else distill,
        "trainer": {"strategy": job["strategy"], "devices": processes, **job.get("trainer", {})},
        "train": {"epochs": job.get("epochs", 2), "imgsz": 64, "batch": 2},
        "optim": {**SGD, **job.get("optim", {})},
    }
    return (configure_unet if kind == "unet" else configure_rcnn)(Path(job["data"]), **changes)


def train(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train as a job says; returns what all processes agree on, and what this one holds of it."""
    config = configure(job)
    student, teacher = models(job["kind"])
    torch.manual_seed(0)
    distiller: Any = (
        FeatureDistiller(student, teacher)
        if config.distill is None
        else build_distiller(student, [teacher], config.distill, 64)
    )
    during: list[int] = []
    distiller.register_forward_hook(lambda *_: during.append(held(teacher.parameters())))
    dataset: Any = (SegmentationDataset if job["kind"] == "unet" else DetectionDataset).load(config.data)
    engine = FAMILIES[config.family].engine
    result = engine.train(student, distiller, config, dataset, folder, resume=job.get("resume", False))
    return {
        "student": {name: whole(value.detach()) for name, value in student.state_dict().items()},
        "learnt": {name: whole(value.detach()) for name, value in distiller.named_parameters()},
        "teacher": dict(teacher.state_dict()),
        "held": {
            "student": held(student.parameters()),
            "learnt": held(distiller.parameters()),
            "teacher": max(during[1:]),  # in the first step it is whole
        },
        "history": result.history,
        "weights": result.weights,
    }


def held(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers that this process holds."""
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)


def main(jobs: dict[str, dict[str, Any]], folder: Path) -> None:
    """Run all jobs in their order."""
    rank = os.environ.get("RANK", "0")
    for name, job in jobs.items():
        torch.save(train(job, folder / job.get("folder", name)), folder / f"{name}.{rank}.pt")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
