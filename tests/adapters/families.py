"""Every family of ultralytics' detectors and segmenters, at a tiny width."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from detkd.adapters.ultralytics import import_ultralytics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

DETECTORS = (
    "yolov3-tiny",
    "yolov5n",
    "yolov6n",
    "yolov8n",
    "yolov8n-p2",
    "yolov8n-p6",
    "yolov9t",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
    "yolo26n-p2",
)
SEGMENTERS = ("yolov8n-seg", "yolov9c-seg", "yolo11n-seg", "yolo12n-seg", "yolo26n-seg")
WIDTH = 0.0625


def build(name: str, classes: Sequence[str] = ("disc", "square")) -> nn.Module:
    """A model from scratch, the same on every call."""
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel, yaml_model_load

    torch.manual_seed(0)
    tree = copy.deepcopy(yaml_model_load(f"{name}.yaml"))
    if "yolo12" not in name:  # its attention needs multiples of 32 channels
        # Depth, width and the largest width; v3 and v9 have no scales of their own.
        tree["scale"], tree["scales"] = "n", {"n": [0.33, WIDTH, 1024]}
    kind = SegmentationModel if name.endswith("-seg") else DetectionModel
    model = kind(tree, nc=len(classes), verbose=False)
    model.names = dict(enumerate(classes))
    return model
