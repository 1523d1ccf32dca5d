"""Folders of runs and comparisons as they are left behind, with names that try to break out of the page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detkd.evaluation.classification import reliability
from detkd.evaluation.coco import PrecisionRecall
from detkd.files import write_json, write_text
from detkd.report.curves import write_precision, write_reliability
from detkd.report.gallery import Attention, Gallery, Shown, write_gallery

HOSTILE = "<script>window.broken=1</script>"
QUOTED = "\"'><img src=x onerror=window.broken=1>"
NAMES = (HOSTILE, QUOTED, "plain")
GRID = ("temperature-2_weight-1", "temperature-2_weight-2")


def section(ap: float, parameters: int) -> dict[str, Any]:
    """A model as results.json has it."""
    metrics = {"AP": ap, "AP50": ap + 0.2, "AP75": ap + 0.05, "APs": math.nan, "AR1": 0.1, "AR100": ap + 0.1}
    intervals = {name: [metrics[name] - 0.04, metrics[name] + 0.03] for name in ("AP", "AP50", "AP75")}
    classes = {name: ap + 0.1 * place for place, name in enumerate(NAMES)}
    own = {**metrics, "intervals": intervals, "per_class": classes}
    return {"parameters": parameters, "gflops": parameters / 1e6, "cpu_ms": 3.5, "metrics": {"val": own, "test": own}}


def write_results(folder: Path, *, taught: bool = True, ap: float = 0.41, **changes: Any) -> None:
    """results.json and config.yaml alone."""
    history = [
        {
            "epoch": epoch,
            "train/box_loss": 3 / (epoch + 1),
            "train/bckd": 1 / (epoch + 1),
            "metrics/mAP50-95(B)": epoch / 20,
        }
        for epoch in range(1, 9)
    ]
    results = {
        "schema_version": 2,
        "task": "detect",
        "family": "yolo",
        "name": folder.name,
        "seed": 0,
        "epochs": 8,
        "train_seconds": 75.0,
        "peak_memory_mib": 100.0,
        "host": {"machine": HOSTILE, "torch_threads": 1},
        "versions": {"detkd": "0.1.0", "ultralytics": None},
        "data": {"path": "data.yaml", "images": {"train": 20, "val": 5, "test": 6}},
        "student": section(ap, 320_000),
        "teachers": [section(0.61, 2_500_000)] if taught else [],
        "history": history,
        "distill_weights": [{"bckd": 2.0}] * 8 if taught else [],
        "checkpoint": "student.pt",
        "command": ["tools/train_det.py", "--config", "a b.yaml", f"name={HOSTILE}"],
    }
    write_json(folder / "results.json", {**results, **changes})
    write_text(folder / "config.yaml", f"name: {folder.name}\nstudent: '{HOSTILE}'\n")


def write_run(folder: Path, *, taught: bool = True, ap: float = 0.41) -> Path:
    """A finished run with all that it keeps."""
    write_results(folder, taught=taught, ap=ap)
    roles = ["teacher", "student"] if taught else ["student"]
    falling = np.linspace(1, 0.2, 101).tolist()
    curve = PrecisionRecall({"0.5": falling, "0.75": falling, "0.5:0.95": falling}, dict.fromkeys(NAMES, falling))
    write_precision(folder, "test", dict.fromkeys(roles, curve))
    grey = np.full((240, 320, 3), 60, np.uint8)
    views = {"ground truth": grey + 120, **{role: grey + 40 * place for place, role in enumerate(roles)}}
    looks = Attention("stride 8", dict.fromkeys(roles, grey))
    shown = [Shown(f"{number} {QUOTED}", views, {"student": HOSTILE}, (looks,)) for number in range(2)]
    write_gallery(Gallery(tuple(shown), {HOSTILE: "#E69F00"}, "note"), folder)
    return folder


def write_grid(folder: Path) -> Path:
    """A comparison whose recipes have the long names of a grid."""
    return write_comparison(folder, recipes=GRID)


def write_comparison(folder: Path, *, runs: bool = True, recipes: tuple[str, str] = ("pkd", QUOTED)) -> Path:
    """A comparison of three recipes on two seeds, and the runs of the first two."""
    first, second = recipes
    values = {"alone": (0.40, 0.42), first: (0.45, 0.46), second: (0.39, 0.43)}
    found: dict[str, Any] = {}
    for name, own in values.items():
        found[name] = {
            **{metric: list(own) for metric in ("AP", "AP50", "AP75")},
            "seconds_per_epoch": 2.0,
            "peak_memory_mib": 900.0,
            "final_terms": {},
        }
        if name != "alone":
            difference = {"mean": sum(own) / 2 - 0.41, "low": -0.03, "high": 0.11, "pairs": 2}
            found[name] |= {"difference": dict.fromkeys(("AP", "AP50", "AP75"), difference), "gap_closed": 0.25}
    report = {
        "schema_version": 1,
        "split": "test",
        "metrics": ["AP", "AP50", "AP75"],
        "seeds": [0, 1],
        "baseline": "alone",
        "teacher": {"AP": 0.61, "AP50": 0.81, "AP75": 0.66},
        "recipes": found,
        "command": ["tools/compare.py", "--seeds", "0,1"],
    }
    write_json(folder / "comparison.json", report)
    for name in ("alone", first) if runs else ():
        for seed in (0, 1):
            write_run(folder / f"{name}-{seed}", taught=name != "alone", ap=values[name][seed])
    return folder


def write_classifier(folder: Path) -> Path:
    """A finished run of a classifier of pictures."""
    labels = torch.arange(40) % 3
    logits = torch.nn.functional.one_hot(labels, 3) * 2 + torch.randn(40, 3)
    own = {"accuracy": 0.8, "NLL": 0.5, "ECE": 0.03, "intervals": {"accuracy": [0.7, 0.9]}, "agreement": 0.9}
    model = {"parameters": 1000, "gflops": 0.1, "cpu_ms": 1.0, "metrics": {"test": own}}
    history = [{"epoch": 1, "train/classes": 1.0, "metrics/accuracy": 0.5}]
    write_results(
        folder, task="classify", family="classifier", student=model, teachers=[model], history=history, distill_weights=[]
    )
    curves = dict.fromkeys(("teacher", "student"), reliability(logits, labels))
    table = {role: dict(zip(NAMES, (0.9, 0.8, 0.7), strict=True)) for role in ("teacher", "student")}
    write_reliability(folder, "test", curves, table, [[1.0, 0.2], [0.3, 0.9], [0.1, 0.4]])
    return folder
