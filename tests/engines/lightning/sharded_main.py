"""Trains several students one after another under torchrun, and saves what each process ended each run with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from detkd.data.detection import DetectionDataset
from detkd.data.segmentation import SegmentationDataset
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES
from detkd.engines.lightning.sharding import whole
from detkd.engines.lightning.shared_teachers import share_out
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model
from tests.engines.conftest import NAMES, TINY_RCNN, configure_rcnn
from tests.engines.lightning.detectors import FeatureDistiller, MeanDetector
from tests.engines.lightning.segmenter_main import build as build_unet
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from detkd.config import RunConfig

# A rate at which rounding stays rounding, and a momentum that a resumed run must have, too.
SGD = {"name": "sgd", "lr": 0.005, "warmup_epochs": 0, "schedule": "constant", "clip": 1.0}
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


def share() -> dict[str, Any]:
    """Run a teacher's parts as adapters do, whole and shared out, and then one of them with gradients."""
    teacher: Any = build_rcnn(0.25).eval().requires_grad_(False)
    teacher.to(memory_format=torch.channels_last)
    total = held(teacher.parameters())
    images = torch.rand(2, 3, 64, 64)

    @torch.no_grad()
    def said() -> list[Tensor]:
        levels = list(teacher.backbone(images).values())
        logits, deltas = teacher.rpn.head(levels)
        regions = teacher.roi_heads.box_head(torch.ones(3, teacher.backbone.out_channels, 7, 7))
        return [*levels, *logits, *deltas, *teacher.roi_heads.box_predictor(regions)]

    whole_said = said()
    parts = share_out(teacher, init_device_mesh("cpu", (2,)))
    said()
    left, kept = held(teacher.parameters()), sum(part.held for part in parts)
    same = all(torch.equal(one, other) for one, other in zip(whole_said, said(), strict=True))
    teacher.roi_heads.box_head(torch.ones(1, teacher.backbone.out_channels, 7, 7))
    with_gradients = held(teacher.roi_heads.box_head.parameters())
    for part in parts:
        part.restore()
    fresh = build_rcnn(0.25).state_dict()
    strides = [parameter.stride() for parameter in build_rcnn(0.25).to(memory_format=torch.channels_last).parameters()]
    return {
        "total": total,
        "left": left,
        "parts": kept,
        "same": same,
        "with gradients": with_gradients,
        "restored": all(torch.equal(value, fresh[name]) for name, value in teacher.state_dict().items()),
        "strides": strides == [parameter.stride() for parameter in teacher.parameters()],
        "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in teacher.modules()),
    }


def main(jobs: dict[str, dict[str, Any]], folder: Path) -> None:
    """Run all jobs in their order."""
    rank = os.environ.get("RANK", "0")
    for name, job in jobs.items():
        ended = share() if job["kind"] == "shared" else train(job, folder / job.get("folder", name))
        torch.save(ended, folder / f"{name}.{rank}.pt")
    distributed.barrier()  # neither leaves while the other still speaks
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
