"""Construction of YOLO students and teachers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.adapters.restricted.ultralytics import restricted
from detkd.adapters.ultralytics import import_ultralytics, load_weights, load_yolo, read_state_dict
from detkd.errors import ConfigError, WeightsError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from detkd.model_config import ModelConfig


def build_yolo(spec: ModelConfig, class_names: Sequence[str], *, role: str) -> tuple[nn.Module, str]:
    """Build a YOLO for a data set's classes and fill it with weights.

    Args:
        spec: Architecture and, or, weights. A checkpoint alone brings its own architecture.
        class_names: Classes of the data set; an architecture is built for as many.
        role: ``student`` or ``teacher``, for messages.

    Returns:
        The model in float32, and a sentence on where its weights came from.

    Raises:
        ConfigError: If neither architecture nor weights are given, or the architecture is unknown.
        WeightsError: If the weights are missing, unreadable or fit nothing.
    """
    import_ultralytics()
    names = dict(enumerate(class_names))
    if spec.model is None or spec.model.endswith(".pt"):
        weights = spec.weights if spec.model is None else Path(spec.model)
        if weights is None:
            raise ConfigError(f"{role}: expected `model` (name or yaml), `weights`, or both, but got neither.")
        if read_state_dict(weights) is not None:
            raise WeightsError(
                f"{role}: expected `model` beside `weights`, because {weights} is a plain state dict, which does not "
                "say its architecture. Add e.g. `model: yolov5n.yaml`."
            )
        # Checkpoints are frozen; ultralytics' trainer would thaw a student with one warning for each tensor.
        return load_yolo(weights).model.float().requires_grad_(True), f"all tensors from {weights}"
    model = _from_yaml(spec, len(names), role)
    model.names = names
    if spec.weights is None:
        return model, "from scratch"
    report = load_weights(model, spec.weights)
    return model, f"{report} ({spec.weights})"


def _from_yaml(spec: ModelConfig, classes: int, role: str) -> Any:
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel, yaml_model_load

    name = str(spec.model)
    if ":/" in name:  # ultralytics would download it
        raise ConfigError(f"{role}.model: expected the name of a model or a path to a yaml, but got {name!r}.")
    try:
        tree = copy.deepcopy(yaml_model_load(name))
    except Exception as error:  # it asserts the file's suffix, and reads whatever the file holds
        raise ConfigError(
            f"{role}.model: expected an ultralytics model yaml (such as yolov5n.yaml) or a path to one, or the name of a "
            f"torchvision detector (such as fasterrcnn_mobilenet_v3_small_fpn), but got {name!r}."
        ) from error
    scale = tree.get("scale")
    if (spec.width is not None or spec.depth is not None) and scale not in (tree.get("scales") or {}):
        raise ConfigError(f"{role}: expected a yaml with scales for `width` and `depth`, but {name} has none.")
    try:
        if spec.width is not None:
            tree["scales"][scale][1] = spec.width
        if spec.depth is not None:
            tree["scales"][scale][0] = spec.depth
        kind = SegmentationModel if "Segment" in str(tree["head"][-1][2]) else DetectionModel
        with restricted():
            return kind(tree, nc=classes, verbose=False)
    except Exception as error:  # the file names layers and what they are made with
        raise ConfigError(
            f"{role}.model: expected layers that ultralytics builds, but {name}: {one_line(error)}"
        ) from error
