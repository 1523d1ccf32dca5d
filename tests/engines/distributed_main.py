"""Trains a student in one process or under torchrun with gloo, and saves what each process ended with.

ultralytics trains in parallel on GPUs only; what of its own stands in the way on a CPU is replaced here. What
detkd adds runs as it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from detkd.ultralytics import distill_trainer

STILL = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic", "erasing"), 0.0)


def main(job: dict[str, Any]) -> None:
    """Train two epochs by SGD."""
    processes, rank = job["processes"], int(os.environ.get("RANK", "0"))
    parallel = nn.parallel.DistributedDataParallel
    nn.parallel.DistributedDataParallel = lambda model, device_ids, **rest: parallel(model, **rest)

    class Trainer(distill_trainer(job["teacher"], terms=job["terms"])):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if processes > 1:
                self.world_size, self.ddp = processes, False

        def _setup_ddp(self) -> None:
            self.device = torch.device("cpu")
            distributed.init_process_group("gloo")

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

    from ultralytics import YOLO

    yolo = YOLO(job["student"])
    small = {"epochs": 2, "imgsz": 64, "batch": 8, "nbs": 8, "workers": 0, "device": "cpu", "amp": False, "seed": 0}
    steady = {"optimizer": "SGD", "lr0": 0.01, "warmup_epochs": 0, "plots": False, "val": False, **STILL}
    trainer = Trainer(
        overrides={**small, **steady, "model": job["student"], "data": job["data"], "project": job["folder"], "name": "run"}
    )
    trainer.model = trainer.get_model(weights=yolo.model, cfg=yolo.model.yaml)
    trainer.train()
    student = dict(trainer.model.named_parameters())
    torch.save(
        {
            "student": {name.removeprefix("module."): value.detach().clone() for name, value in student.items()},
            "aligners": {name: value.detach().clone() for name, value in trainer.distiller.named_parameters()},
            "weights": trainer.weight_log.epochs[-1],
        },
        Path(job["folder"]) / f"{rank}.pt",
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
