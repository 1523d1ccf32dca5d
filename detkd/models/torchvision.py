"""Construction of torchvision's detectors from a configuration, and checkpoints that say what they are of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from detkd.errors import ConfigError, WeightsError
from detkd.models import one_stage, two_stage
from detkd.models.architecture import Architecture, Proposals
from detkd.models.checkpoints import given_checkpoint, load_tensors, plain_tensors, read_header, write_checkpoint
from detkd.weights import METADATA, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from detkd.model_config import ModelConfig
    from detkd.weights import FillReport


@dataclass(frozen=True)
class Builder:
    """What builds the detectors of a name.

    Attributes:
        build: Builds one from scratch.
        width: Its width unless the configuration gives another; None where it has none.
        proposals: Its regions unless the caller gives others; None where it has none.
        body: Prefix of the body's tensors in a checkpoint of the body's own, as of ImageNet; None if none would fit.
    """

    build: Callable[[Architecture], nn.Module]
    width: float | None = None
    proposals: Proposals | None = None
    body: str | None = None


FULL = Proposals(pre_nms=1000, post_nms=1000, sampled=512)
PHONE = Proposals(pre_nms=150, post_nms=150, sampled=128)  # torchvision's for its tests at 320 pixels
# At 256 pixels on a CPU, pooling 128 regions of an image for training takes a third of the step of the smallest student.
COMPACT = Proposals(pre_nms=256, post_nms=256, sampled=64)

BUILDERS: dict[str, Builder] = {
    "fasterrcnn_resnet50_fpn": Builder(two_stage.fasterrcnn_resnet50_fpn, 1.0, FULL, body=""),
    "fasterrcnn_resnet50_fpn_v2": Builder(two_stage.fasterrcnn_resnet50_fpn_v2, 1.0, FULL, body=""),
    "fasterrcnn_mobilenet_v3_large_fpn": Builder(two_stage.fasterrcnn_mobilenet_v3_large_fpn, 1.0, FULL, body="features."),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Builder(
        two_stage.fasterrcnn_mobilenet_v3_large_fpn, 1.0, PHONE, body="features."
    ),
    "fasterrcnn_resnet18_fpn": Builder(two_stage.fasterrcnn_resnet18_fpn, 0.5, COMPACT, body=""),
    "fasterrcnn_mobilenet_v3_small_fpn": Builder(
        two_stage.fasterrcnn_mobilenet_v3_small_fpn, 0.25, COMPACT, body="features."
    ),
    "fasterrcnn_yolov5n_fpn": Builder(two_stage.fasterrcnn_yolov5n_fpn, 0.5, COMPACT, body="model."),
    "maskrcnn_resnet50_fpn": Builder(two_stage.mask_rcnn, proposals=FULL, body=""),
    "maskrcnn_resnet50_fpn_v2": Builder(two_stage.mask_rcnn, proposals=FULL, body=""),
    "maskrcnn_yolov5n_fpn": Builder(two_stage.maskrcnn_yolov5n_fpn, 0.5, COMPACT, body="model."),
    "retinanet_resnet50_fpn": Builder(one_stage.retinanet, body=""),
    "retinanet_resnet50_fpn_v2": Builder(one_stage.retinanet, body=""),
    "fcos_resnet50_fpn": Builder(one_stage.fcos, body=""),
    "ssdlite320_mobilenet_v3_large": Builder(one_stage.ssdlite),
}


def build_model(spec: ModelConfig, class_names: Sequence[str], *, role: str, imgsz: int) -> tuple[nn.Module, str]:
    """Build a torchvision detector for a data set's classes and fill it with weights; nothing is ever downloaded.

    Args:
        spec: Name and, or, weights. A checkpoint of :func:`save_model` alone brings its own architecture and classes; a
            state dict of the detector or of its backbone, beside a name, fills what fits.
        class_names: Classes of the data set, without a background; labels count them from 1.
        role: ``student`` or ``teacher``, for messages.
        imgsz: Side of the square input in pixels.

    Returns:
        The model in float32, which holds its ``class_names`` and its ``architecture``, and a sentence on where its weights
        came from.

    Raises:
        ConfigError: If neither name nor weights are given, the name is unknown, or has no such setting.
        WeightsError: If the weights are missing, unreadable or fit nothing.
    """
    path = given_checkpoint(spec, role)
    if path is not None:
        return load_model(path, imgsz, _given_proposals(spec)), f"all tensors from {path}"
    architecture = _architecture(spec, class_names, role, imgsz)
    model = construct(architecture)
    if spec.weights is None:
        return model, "from scratch"
    return model, f"{_fill(model, spec.weights, BUILDERS[architecture.name].body)} ({spec.weights})"


def construct(architecture: Architecture) -> nn.Module:
    """Build a detector from scratch."""
    model: Any = BUILDERS[architecture.name].build(architecture)
    model.class_names = architecture.class_names
    model.architecture = architecture
    detector: nn.Module = model
    return detector


def save_model(model: nn.Module, path: Path) -> None:
    """Write a detector of :func:`build_model` as safetensors: its tensors alone, and in the header what it was built as.

    ``load_state_dict(safetensors.torch.load_file(path))`` reads it into the same model built by torchvision.

    Raises:
        WeightsError: If the model was built elsewhere.
        ConfigError: If the file cannot be written.
    """
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise WeightsError(
            f"Expected a model that says its `architecture`, but {type(model).__name__} does not. Build it with "
            "detkd.models.torchvision.build_model, or save its state dict with torch.save."
        )
    write_checkpoint(model, path, {METADATA: architecture.to_json()})


def load_model(path: Path, imgsz: int | None = None, proposals: Proposals | None = None) -> nn.Module:
    """Build the detector of a checkpoint of :func:`save_model`.

    Args:
        path: The checkpoint.
        imgsz: Side of its input in pixels; None for the one that it was trained at. The tensors mean the same at any.
        proposals: Its regions; None for those that it was trained with. The tensors mean the same with any.

    Raises:
        WeightsError: If the file is missing, unreadable, or none of these.
        ConfigError: If the detector proposes no regions, but is given some.
    """
    architecture = _read_architecture(path)
    if imgsz is not None:
        architecture = replace(architecture, imgsz=imgsz)
    if proposals is not None:
        if architecture.proposals is None:
            raise ConfigError(f"proposals: {architecture.name} of {path} proposes no regions; remove it.")
        architecture = replace(architecture, proposals=proposals)
    model = construct(architecture)
    load_tensors(model, path, architecture.name)
    return model


def _read_architecture(path: Path) -> Architecture:
    architecture, _ = read_header(path, Architecture.from_json)
    if architecture.name not in BUILDERS:
        raise WeightsError(f"Expected a checkpoint of one of {sorted(BUILDERS)}, but {path} is of {architecture.name!r}.")
    if (architecture.proposals is None) != (BUILDERS[architecture.name].proposals is None):
        raise WeightsError(f"Expected {path} to give `proposals` if its model has regions, but got {architecture}.")
    return architecture


def _architecture(spec: ModelConfig, class_names: Sequence[str], role: str, imgsz: int) -> Architecture:
    builder = BUILDERS.get(str(spec.model))
    if builder is None:
        raise ConfigError(f"{role}.model: expected one of {sorted(BUILDERS)}, but got {spec.model!r}.")
    faults = []
    if spec.depth is not None:
        faults.append(f"{role}.depth: torchvision's detectors have none; remove it.")
    if spec.width is not None and builder.width is None:
        scalable = [name for name, other in BUILDERS.items() if other.width is not None]
        faults.append(f"{role}.width: {spec.model} has one width only; remove it, or take one of {scalable}.")
    if spec.proposals is not None and builder.proposals is None:
        faults.append(f"{role}.proposals: {spec.model} proposes no regions; remove it.")
    if faults:
        raise ConfigError("\n".join(faults))
    return Architecture(
        name=str(spec.model),
        class_names=tuple(class_names),
        imgsz=imgsz,
        width=builder.width if spec.width is None else spec.width,
        proposals=_given_proposals(spec) or builder.proposals,
    )


def _given_proposals(spec: ModelConfig) -> Proposals | None:
    return None if spec.proposals is None else Proposals(**spec.proposals.model_dump())


def _fill(model: nn.Module, path: Path, body: str | None) -> FillReport:
    state = plain_tensors(path)
    if body is not None and not state.keys() & model.state_dict().keys():
        state = {f"backbone.body.{name.removeprefix(body)}": value for name, value in state.items()}
    return fill(model, state, path)
