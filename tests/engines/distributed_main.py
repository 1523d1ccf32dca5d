"""Trains a student in one process or under torchrun with gloo, and saves what each process ended with.

ultralytics trains in parallel on GPUs only; what of its own stands in the way on a CPU is replaced here. What
detkd adds runs as it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

import detkd.ultralytics

STILL = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic", "erasing"), 0.0)
ARGUMENTS = {
    **{"epochs": 2, "imgsz": 64, "batch": 8, "nbs": 8, "workers": 0, "device": "cpu", "amp": False, "seed": 0},
    **{"optimizer": "SGD", "lr0": 0.01, "warmup_epochs": 0, "plots": False, "val": False, **STILL},
}


def make_trainer(job: dict[str, Any]) -> Any:
    """A trainer of ultralytics that distils, on as many processes of a CPU as the job says."""

    class Trainer(detkd.ultralytics.distill_trainer(job["teacher"], terms=job["terms"])):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.seen: dict[int, list[Any]] = defaultdict(list)
            super().__init__(*args, **kwargs)
            if job["processes"] > 1:
                self.world_size, self.ddp = job["processes"], False
            self.add_callback("on_train_epoch_start", Trainer.cut)

        def _setup_ddp(self) -> None:
            self.device = torch.device("cpu")
            distributed.init_process_group("gloo")

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.seen[self.epoch] += map(tuple, batch.get("views", ()))
            return dict(super().preprocess_batch(batch))

        def cut(self) -> None:
            if self.epoch == job.get("cut"):
                keep(self, job)
                raise SystemExit(0)

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

    return Trainer


def keep(trainer: Any, job: dict[str, Any]) -> None:
    """Save what this process has come to."""
    student = dict(trainer.model.named_parameters())
    state = {
        "student": {name.removeprefix("module."): value.detach() for name, value in student.items()},
        "aligners": {name: value.detach() for name, value in trainer.distiller.named_parameters()},
        "weights": trainer.weight_log.epochs[-1],
        "views": dict(trainer.seen),
        "averages": [dict(average.model.named_parameters()) for average in trainer.averages],
    }
    torch.save(state, Path(job["folder"], f"{os.environ.get('RANK', '0')}.pt"))


def main(job: dict[str, Any]) -> None:
    """Train by SGD, or go on with a run that was cut."""
    parallel, build = nn.parallel.DistributedDataParallel, detkd.ultralytics.build_distiller
    nn.parallel.DistributedDataParallel = lambda model, device_ids, **rest: parallel(model, **rest)
    if job.get("live"):  # the teacher itself, on the views of its cache
        detkd.ultralytics.build_distiller = lambda *arguments: build(*arguments[:-1], None)
    last = Path(job["folder"], "run", "weights", "last.pt")
    resumed = {"model": str(last), "resume": str(last)} if last.is_file() else {}
    place = {"model": job["student"], "data": job["data"], "project": job["folder"], "name": "run"}
    trainer = make_trainer(job)(overrides={**ARGUMENTS, **job.get("arguments", {}), **place, **resumed})
    if not resumed:
        from ultralytics import YOLO

        yolo = YOLO(job["student"])
        trainer.model = trainer.get_model(weights=yolo.model, cfg=yolo.model.yaml)
    trainer.train()
    keep(trainer, job)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
