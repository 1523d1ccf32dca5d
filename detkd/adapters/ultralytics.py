"""Adapter for ultralytics' YOLO detectors, and loading of their checkpoints.

ultralytics is AGPL-3.0 and optional: it is imported when a function here is called, never before.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detkd.adapters.base import POINT
from detkd.adapters.hooked import Hooked
from detkd.adapters.restricted.ultralytics import restricted
from detkd.errors import AdapterError, DetkdError, WeightsError, one_line
from detkd.hooks import Capture
from detkd.types import DensePredictions, DetectorOutputs
from detkd.weights import FillReport, fill, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from detkd.adapters.base import DenseKind

__all__ = [
    "FillReport",
    "UltralyticsAdapter",
    "as_yolo",
    "fill",
    "import_ultralytics",
    "load_weights",
    "load_yolo",
    "quiet",
    "read_state_dict",
]

# Sides of a box: left, top, right, bottom distances from its anchor.
SIDES = 4


def import_ultralytics() -> Any:
    """Import ultralytics, made to load checkpoints without unpickling anything but its own classes, and to install nothing.

    Raises:
        DetkdError: If it is not installed.
    """
    # Read by ultralytics once, while it is imported. It would call pip where it misses a package, for a broken image too.
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        import ultralytics
    except ModuleNotFoundError as error:
        raise DetkdError("YOLO models need ultralytics (AGPL-3.0): pip install 'detkd[yolo]'.") from error
    return ultralytics


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ultralytics to its warnings: its own bars and tables would break into others."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


class UltralyticsAdapter(Hooked):
    """Watches the head of a YOLO: its inputs are the neck's features, its output the raw predictions.

    Every detector and segmenter of ultralytics with a ``Detect`` head fits: v3 to v12 and YOLO26, with or without
    distributions of box sides, with one head or two.

    Args:
        model: An ``ultralytics.nn.tasks.DetectionModel`` (or a subclass) whose last layer is a ``Detect`` head.

    Raises:
        AdapterError: If the model has no such head, or was fused for inference.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = getattr(model, "model", None)
        head: Any = layers[-1] if isinstance(layers, nn.Sequential) else None
        if head is None or not hasattr(head, "reg_max") or not hasattr(head, "cv2"):
            raise AdapterError(
                f"Expected an ultralytics detection model whose last layer is a Detect head, but got "
                f"{type(model).__name__} ending in {type(head).__name__}."
            )
        if head.cv2 is None:
            raise AdapterError(
                "Expected a model as it was trained, but this one was fused for inference and lacks the head that "
                "distillation needs. Give the checkpoint that training wrote."
            )
        self.model = model
        names = getattr(model, "names", {})
        self.class_names: tuple[str, ...] = tuple(names.values() if isinstance(names, dict) else names)
        self.feature_channels: tuple[int, ...] = tuple(_first_convolution(branch).in_channels for branch in head.cv2)
        self.strides: tuple[int, ...] = tuple(int(s) for s in head.stride)
        self.dense: DenseKind = "sigmoid"
        self.anchor_shapes: tuple[tuple[tuple[float, float], ...], ...] = (POINT,) * len(self.strides)
        self.stage_channels: tuple[tuple[int, int], ...] = tuple(
            (_last_convolution(box[0]).out_channels, _last_convolution(scores[0]).out_channels)
            for box, scores in zip(head.cv2, head.cv3, strict=True)
        )
        self._head = head
        path = f"model.{len(layers) - 1}" if isinstance(layers, nn.Sequential) else ""
        self._path = path
        self._stages = [(f"{path}.cv2.{level}.0", f"{path}.cv3.{level}.0") for level in range(len(self.strides))]
        self._capture = Capture(model, [path, *(stage for pair in self._stages for stage in pair)])

    def run(self, images: Tensor) -> None:
        """Run the model on images [B, 3, H, W]."""
        self.model(images)

    def take_outputs(self) -> DetectorOutputs:
        """Return what the head saw and said in the latest forward pass, and let go of it."""
        features = tuple(self._capture.inputs(self._path)[0])
        raw = _raw_predictions(self._capture.output(self._path))
        stages = tuple((self._capture.output(box), self._capture.output(scores)) for box, scores in self._stages)
        self._capture.clear()
        points, strides = _anchors([feature.shape[2:] for feature in features], self.strides, features[0].device)
        prototypes = raw[0].get("proto")
        return DetectorOutputs(
            features=features,
            heads=tuple(self._dense(head, points, strides) for head in raw),
            anchor_points=points,
            stages=stages,
            # YOLO26 adds a semantic map for training to its prototypes.
            prototypes=prototypes[0] if isinstance(prototypes, tuple) else prototypes,
        )

    def finish(self, stages: Mapping[int, tuple[Tensor, Tensor]]) -> DensePredictions:
        """Run the rest of the one-to-many head; see :class:`detkd.adapters.base.DetectorAdapter`."""
        boxes = [self._head.cv2[level][1:](box).flatten(2) for level, (box, _) in stages.items()]
        scores = [self._head.cv3[level][1:](logits).flatten(2) for level, (_, logits) in stages.items()]
        sizes = [box.shape[2:] for box, _ in stages.values()]
        points, strides = _anchors(sizes, [self.strides[level] for level in stages], boxes[0].device)
        return self._dense({"boxes": torch.cat(boxes, -1), "scores": torch.cat(scores, -1)}, points, strides)

    def _dense(self, raw: Mapping[str, Any], points: Tensor, strides: Tensor) -> DensePredictions:
        bins = raw["boxes"].unflatten(1, (SIDES, -1))  # [B, 4, R, A]
        return DensePredictions(
            logits=raw["scores"],
            boxes=_decode(bins, points, strides),
            bins=bins if bins.shape[2] > 1 else None,
            coefficients=raw.get("mask_coefficient"),
        )


def _first_convolution(branch: nn.Module) -> nn.Conv2d:
    return next(module for module in branch.modules() if isinstance(module, nn.Conv2d))


def _last_convolution(stage: nn.Module) -> nn.Conv2d:
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1]


def _raw_predictions(output: Any) -> list[Mapping[str, Any]]:
    """The raw predictions of each head out of what the head module returned, in training or not."""
    raw = output[1] if isinstance(output, tuple) else output
    heads = [raw[name] for name in ("one2many", "one2one") if name in raw] if isinstance(raw, dict) else []
    heads = heads or [raw]
    for head in heads:
        if not isinstance(head, dict) or not {"boxes", "scores"} <= head.keys():
            got = sorted(head) if isinstance(head, dict) else type(head).__name__
            raise AdapterError(
                f"Expected the head's raw output to be a dict with `boxes` and `scores` (ultralytics 8.4), but got {got}. "
                "Install ultralytics>=8.4,<8.5."
            )
    return heads


def _anchors(sizes: Sequence[Sequence[int]], strides: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres [A, 2] and strides [A] in pixels of the anchors of levels of the given heights and widths."""
    points, steps = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        points.append((torch.stack((x, y), -1).reshape(-1, 2).float() + 0.5) * stride)
        steps.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(points), torch.cat(steps)


def _decode(bins: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes (x1, y1, x2, y2) in pixels, [B, A, 4], from the expectation of each side's distribution [B, 4, R, A]."""
    count = bins.shape[2]
    if count > 1:
        values = torch.arange(count, device=bins.device, dtype=torch.float32)
        sides = torch.einsum("bsra,r->bas", bins.float().softmax(2), values)
    else:
        sides = bins.float()[:, :, 0].transpose(1, 2)
    sides = sides * strides[:, None]
    return torch.cat((points - sides[..., :2], points + sides[..., 2:]), -1)


def load_yolo(weights: Path | str) -> Any:
    """Load an ultralytics checkpoint as ``ultralytics.YOLO`` without running code that it may carry.

    Raises:
        WeightsError: If the file is missing, is no ultralytics checkpoint, or holds anything but known classes.
    """
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"Expected a checkpoint file, but there is none at {path}.")
    if path.suffix != ".pt":  # ultralytics would take it for an exported model
        raise WeightsError(f"Expected an ultralytics checkpoint (.pt), but got {path}.")
    ultralytics = import_ultralytics()
    try:
        with restricted():
            yolo = ultralytics.YOLO(str(path))
    except Exception as error:  # the file chooses what is built out of what, and so what is raised
        raise WeightsError(f"Expected an ultralytics checkpoint, but {path} is not one: {one_line(error)}") from error
    return yolo


def load_weights(model: nn.Module, path: Path) -> FillReport:
    """Fill a YOLO from a plain state dict or an ultralytics checkpoint; see :func:`fill`."""
    state = read_state_dict(path)
    if state is None:
        state = load_yolo(path).model.float().state_dict()
    return fill(model, state, path)


def as_yolo(model: nn.Module) -> Any:
    """Wrap a detection or segmentation model as ``ultralytics.YOLO``, so that it can predict on files; it is copied."""
    wrapper = import_ultralytics().YOLO("yolov5n.yaml", task="detect", verbose=False)
    layers: Any = model.model
    wrapper.task = wrapper.overrides["task"] = "segment" if hasattr(layers[-1], "proto") else "detect"
    wrapper.model = copy.deepcopy(model).float().eval()  # prediction fuses layers in place
    return wrapper
