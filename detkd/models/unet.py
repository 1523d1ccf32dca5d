"""Construction of U-Nets from a configuration, and checkpoints that say what they are of."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from detkd.errors import ConfigError, WeightsError, one_line
from detkd.models.checkpoints import given_checkpoint, load_tensors, plain_tensors, read_header, write_checkpoint
from detkd.models.plain_unet import CHANNELS, PlainUNet
from detkd.models.segmenter import Segmenter
from detkd.models.unet_architecture import UNetArchitecture
from detkd.types import BACKGROUND
from detkd.weights import METADATA, fill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from detkd.model_config import ModelConfig
    from detkd.types import Mode
    from detkd.weights import FillReport

PLAIN = "unet"
DECODER_CHANNELS = (256, 128, 64, 32, 16)  # of segmentation-models-pytorch, at strides 16 to 1
PLAIN_STRIDE = 2 ** (len(CHANNELS) - 1)
ENCODER_STRIDE = 2 ** len(DECODER_CHANNELS)


def build_model(spec: ModelConfig, class_names: Sequence[str], *, role: str, imgsz: int) -> tuple[Segmenter, str]:
    """Build a U-Net for a data set's classes and fill it with weights; nothing is ever downloaded.

    ``unet`` is a small one of its own, of 0.49 million parameters at `width` 1. ``unet_ENCODER`` is that of
    segmentation-models-pytorch on any of its encoders, those of timm (``unet_tu-NAME``) among them; `width` scales its
    decoder.

    Args:
        spec: Name and, or, weights. A checkpoint of :func:`save_model` alone brings its own architecture and classes; a
            state dict of the network or of its encoder, beside a name, fills what fits.
        class_names: Classes of the data set, without a background.
        role: ``student`` or ``teacher``, for messages.
        imgsz: Side of the square input in pixels.

    Returns:
        The model in float32, and a sentence on where its weights came from.

    Raises:
        ConfigError: If neither name nor weights are given, the name is unknown, has no such setting, or fits no such size.
        WeightsError: If the weights are missing, unreadable or fit nothing.
    """
    path = given_checkpoint(spec, role)
    if path is not None:
        model, origin = load_model(path, imgsz), f"all tensors from {path}"
    else:
        model, origin = construct(_architecture(spec, class_names, role, imgsz), role), "from scratch"
        if spec.weights is not None:
            origin = f"{_fill(model.network, spec.weights)} ({spec.weights})"
    if imgsz % model.stride:
        raise ConfigError(
            f"{role}: expected an input whose side is a multiple of {model.stride} pixels, which its U-Net halves to its "
            f"deepest level, but got {imgsz}. Set `train.imgsz` to such a size."
        )
    if spec.class_weights is not None:
        model.weigh_classes(_class_weights(spec.class_weights, model.class_names, role))
    return model, origin


def construct(architecture: UNetArchitecture, role: str = "student") -> Segmenter:
    """Build a U-Net from scratch.

    Raises:
        ConfigError: If there is none of its name.
    """
    plain = architecture.name == PLAIN
    return Segmenter(
        PlainUNet(architecture.channels, architecture.width) if plain else _smp_unet(architecture, role),
        architecture.class_names,
        boundary=architecture.boundary,
        stride=PLAIN_STRIDE if plain else ENCODER_STRIDE,
        architecture=architecture,
    )


def save_model(model: nn.Module, path: Path, *, pictures: Mode | None = None) -> None:
    """Write a U-Net of :func:`build_model` as safetensors: its tensors alone, and in the header what it was built as.

    ``load_state_dict(safetensors.torch.load_file(path))`` reads it into the same ``Unet`` of segmentation-models-pytorch,
    which takes images normalised by ImageNet's mean and deviation.

    Args:
        model: The U-Net.
        path: The file.
        pictures: How it was shown pictures; None leaves what it was built as.

    Raises:
        WeightsError: If the model was built elsewhere.
        ConfigError: If the file cannot be written.
    """
    if not isinstance(model, Segmenter) or model.architecture is None:
        raise WeightsError(
            f"Expected a U-Net that says its `architecture`, but {type(model).__name__} does not. Build it with "
            "detkd.models.unet.build_model, or save its state dict with torch.save."
        )
    architecture = model.architecture if pictures is None else replace(model.architecture, pictures=pictures)
    write_checkpoint(model.network, path, {METADATA: architecture.to_json()})


def load_model(path: Path, imgsz: int | None = None) -> Segmenter:
    """Build the U-Net of a checkpoint of :func:`save_model`.

    Args:
        path: The checkpoint.
        imgsz: Side of its input in pixels; None for the one that it was trained at. The tensors mean the same at any.

    Raises:
        WeightsError: If the file is missing, unreadable, or none of these.
    """
    architecture, _ = read_header(path, UNetArchitecture.from_json, "the architecture of a U-Net")
    if imgsz is not None:
        architecture = replace(architecture, imgsz=imgsz)
    try:
        model = construct(architecture)
    except ConfigError as error:
        raise WeightsError(f"Expected {path} to hold the tensors of a {architecture.name}, but: {error}") from error
    load_tensors(model.network, path, architecture.name)
    return model


def _architecture(spec: ModelConfig, class_names: Sequence[str], role: str, imgsz: int) -> UNetArchitecture:
    if spec.depth is not None:
        raise ConfigError(f"{role}.depth: a U-Net has none; remove it.")
    return UNetArchitecture(
        name=str(spec.model),
        class_names=tuple(class_names),
        imgsz=imgsz,
        boundary=spec.boundary is not False,
        width=1.0 if spec.width is None else spec.width,
    )


def _class_weights(given: Mapping[str, float], class_names: Sequence[str], role: str) -> list[float]:
    """The weight of the background and of each class."""
    names = (BACKGROUND, *class_names)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ConfigError(f"{role}.class_weights: expected names out of {list(names)}, but got {unknown}.")
    return [given.get(name, 1.0) for name in names]


def _smp_unet(architecture: UNetArchitecture, role: str) -> nn.Module:
    """The ``Unet`` of segmentation-models-pytorch, with random weights."""
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{role}.model: {architecture.name} needs segmentation-models-pytorch: pip install 'detkd[segmentation]'."
        ) from error
    encoder = architecture.name.removeprefix(f"{PLAIN}_")
    known = smp.encoders.get_encoder_names()
    # timm resolves names such as hf-hub:OWNER/NAME by a download.
    if encoder == architecture.name or (encoder not in known and not re.fullmatch(r"tu-[A-Za-z0-9_.]+", encoder)):
        raise ConfigError(_unknown(architecture.name, encoder, known, role))
    try:
        network: nn.Module = smp.Unet(
            encoder_name=encoder,
            encoder_weights=None,
            decoder_channels=[max(1, round(count * architecture.width)) for count in DECODER_CHANNELS],
            classes=architecture.channels,
        )
    except Exception as error:  # timm raises a RuntimeError for an unknown name, and anything for one without levels
        if not encoder.startswith("tu-"):
            raise
        raise ConfigError(f"{_unknown(architecture.name, encoder, known, role)} ({one_line(error)})") from error
    return network


def _unknown(name: str, encoder: str, known: list[str], role: str) -> str:
    candidates = [*known, *_timm_names()]
    close = [f"{PLAIN}_{match}" for match in difflib.get_close_matches(encoder, candidates, 5, 0.6)]
    hint = f"Close to it: {close}" if close else f"For example {PLAIN}_resnet18, {PLAIN}_mobilenet_v2"
    return (
        f"{role}.model: expected {PLAIN}, or {PLAIN}_ENCODER with an encoder of segmentation-models-pytorch, but got "
        f"{name!r}. {hint}."
    )


def _timm_names() -> list[str]:
    import timm  # comes with segmentation-models-pytorch

    listed: Any = timm.list_models()
    return [f"tu-{name}" for name in listed]


def _fill(network: nn.Module, path: Path) -> FillReport:
    state = plain_tensors(path)
    if not state.keys() & network.state_dict().keys():
        state = {f"encoder.{name}": value for name, value in state.items()}  # of an encoder alone, as of ImageNet
    return fill(network, state, path)
