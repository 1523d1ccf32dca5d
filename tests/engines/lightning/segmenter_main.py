"""Trains a U-Net in one process or under torchrun, and saves what each process ended with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detkd.data.segmentation import SegmentationDataset
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES, build_model
from detkd.model_config import ModelConfig
from tests.engines.lightning.segmenters import MeanSegmenter
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from torch import nn


def main(job: dict[str, Any]) -> None:
    """Train two epochs."""
    processes, rank = job["processes"], int(os.environ.get("RANK", "0"))
    config = configure_unet(
        Path(job["data"]),
        trainer={"strategy": "ddp", "devices": processes} if processes > 1 else {},
        distill={
            "teacher": {"ema": 0.5} if job.get("ema") else {"weights": "unused.safetensors"},
            "terms": {"pixel_kl": {}, "fitnet": {}},
            # The norm of a gradient is none of those of its halves.
            "balance": "none" if job["exact"] else "gradient_ratio",
        },
        optim={"name": "sgd", "lr": 0.05, "warmup_epochs": 0, "schedule": "constant"},
    )
    widths = (0.25, 0.25 if job.get("ema") else 0.5)
    student, teacher = ((MeanSegmenter if job["exact"] else build)(width) for width in widths)
    assert config.distill is not None
    torch.manual_seed(0)
    distiller = build_distiller(student, [teacher], config.distill, 64)
    dataset = SegmentationDataset.load(config.data)
    engine = FAMILIES["unet"].engine
    result = engine.train(student, distiller, config, dataset, Path(job["folder"]) / "run", resume=False)
    torch.save(
        {
            "student": student.state_dict(),
            "distiller": dict(distiller.named_parameters()),
            "history": result.history,
            "weights": result.weights,
            "teacher": dict(teacher.named_parameters()),
        },
        Path(job["folder"]) / f"{rank}.pt",
    )


def build(width: float) -> nn.Module:
    """A plain U-Net."""
    torch.manual_seed(0)
    return build_model(ModelConfig(model="unet", width=width), ("disc",), role="student", imgsz=64)[0]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
