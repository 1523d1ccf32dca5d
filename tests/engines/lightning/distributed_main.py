"""Trains a student in one process or under torchrun, and saves what each process ended with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from detkd.data.detection import DetectionDataset
from tests.engines.lightning.detectors import ENGINE, FeatureDistiller, MeanDetector, configure, faster_rcnn


def main(job: dict[str, Any]) -> None:
    """Train two epochs."""
    processes, rank, data = job["processes"], int(os.environ.get("RANK", "0")), Path(job["data"])
    student, teacher = (MeanDetector(8), MeanDetector(12)) if job["exact"] else (faster_rcnn(), faster_rcnn(12))
    distiller = FeatureDistiller(student, teacher, stop=2.0 if job["exact"] else 1.0)
    trainer = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
    config = configure(data, trainer=trainer, train={"epochs": 2, "imgsz": 64, "batch": 2})
    result = ENGINE.train(student, distiller, config, DetectionDataset.load(data), Path(job["folder"]) / "run")
    torch.save(
        {
            "student": student.state_dict(),
            "aligner": distiller.aligner.state_dict(),
            "history": result.history,
        },
        Path(job["folder"]) / f"{rank}.pt",
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
