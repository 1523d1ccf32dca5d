"""A YOLO that draws masks, trained beside a teacher that does, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from detkd.adapters.ultralytics import load_yolo
from detkd.config import parse_config
from detkd.data.synthetic import write_synthetic
from detkd.engines.run import run_config
from detkd.evaluation.ultralytics import predict_coco

if TYPE_CHECKING:
    from pathlib import Path


def configure(data: Path, **changes: Any) -> Any:
    tree = {
        "name": "run",
        "output": str(data.parent.parent),
        "data": str(data),
        "student": {"model": "yolo11n-seg.yaml", "width": 0.0625},
        "train": {"epochs": 1, "imgsz": 64, "batch": 4},
        "trainer": {"optimizer": "AdamW", "warmup_epochs": 0, "mosaic": 0.0},
        "evaluate": ["val"],
    }
    return parse_config({**tree, **changes})


def test_a_segmenting_student_learns_masks_from_labels_and_from_its_teacher(tmp_path: Path) -> None:
    data = write_synthetic(tmp_path / "data", {"train": 4, "val": 2}, size=64, polygons=True)
    teacher = run_config(
        configure(data, name="teacher", student={"model": "yolo11n-seg.yaml", "width": 0.125}, distill=None)
    )
    terms = {"bckd": {}, "mask_kd": {}}
    distill = {"teacher": {"weights": str(teacher / "student.pt")}, "terms": terms}
    run = run_config(configure(data, name="student", distill=distill))
    (row,) = json.loads((run / "results.json").read_text())["history"]
    assert row["train/seg_loss"] > 0
    assert "metrics/mAP50-95(M)" in row
    assert row["train/mask_kd"] > 0

    model = load_yolo(run / "student.pt")
    truth = json.loads((data.parent / "val.json").read_text())
    images = sorted((data.parent / "images" / "val").iterdir())
    found = predict_coco(model, images, truth, imgsz=64, confidence=1e-6)
    assert found
    assert all(one["segmentation"]["size"] == [64, 64] for one in found)
    # A mask lies in its box.
    for one in found[:20]:
        rows, columns = np.nonzero(coco_mask.decode(one["segmentation"]))
        x, y, width, height = one["bbox"]
        assert not len(rows) or (x - 2 <= columns.min() and columns.max() <= x + width + 2)
        assert not len(rows) or (y - 2 <= rows.min() and rows.max() <= y + height + 2)
