"""Backbones of ultralytics' models, without their necks and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.adapters.ultralytics import import_ultralytics

if TYPE_CHECKING:
    from torch import nn

# The layers of YOLOv5n whose outputs have strides 8, 16 and 32, and their channels.
YOLOV5N_CHANNELS = {"4": 64, "6": 128, "9": 256}


def yolov5n_layers() -> nn.Sequential:
    """The first ten layers of YOLOv5n, from scratch; ultralytics' checkpoints call them ``model.0`` to ``model.9``.

    Raises:
        DetkdError: If ultralytics is not installed.
    """
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    # The whole model, because it sets the constants of its BatchNorms when it is complete.
    layers: nn.Sequential = DetectionModel("yolov5n.yaml", verbose=False).model[:10]
    return layers
