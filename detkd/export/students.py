"""Students of all families as something to export."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from detkd.adapters.classifier import PADDING
from detkd.errors import ConfigError, WeightsError
from detkd.export.exportable import Exportable
from detkd.export.samples import pictures, tokens
from detkd.export.ultralytics import exportable_yolo
from detkd.model_config import ModelConfig
from detkd.models import classifier_files, torchvision, unet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

SMALLEST = 32  # pixels

_CHOSEN = (
    "how many boxes a detector of torchvision returns depends on the picture, which torch.export does not follow. Take "
    "onnx or torchscript."
)
_PACKED = "sentences of an LSTM are packed by their lengths, which torch.export does not follow. Take onnx or torchscript."


def load_student(weights: Path, imgsz: int | None = None) -> Exportable:
    """Read a student of any family.

    Args:
        weights: A run's ``student.pt`` or ``student.safetensors``.
        imgsz: Side of its input in pixels; None for the one that it was trained at.

    Raises:
        WeightsError: If there is no such checkpoint.
        ConfigError: If it cannot see pictures of that size.
    """
    if not weights.is_file():
        raise WeightsError(f"Expected a checkpoint, but there is none at {weights}.")
    if imgsz is not None and imgsz < SMALLEST:
        raise ConfigError(f"--imgsz: expected {SMALLEST} pixels or more, but got {imgsz}.")
    return _LOADERS[ModelConfig.model_validate({"weights": weights}).family](weights, imgsz)


class Flat(nn.Module):
    """A detector of torchvision that takes a batch of one picture, [1, 3, S, S], and returns what it finds there.

    Args:
        detector: The detector.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self.keys = ("boxes", "labels", "scores", *(("masks",) if _finds_masks(detector) else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes (x1, y1, x2, y2) in pixels [N, 4], labels from 1 [N], scores [N], of a Mask R-CNN masks [N, 1, S, S]."""
        (found,) = self.detector([images[0]])
        return tuple(found[key] for key in self.keys)


def _finds_masks(detector: nn.Module) -> bool:
    regions: Any = getattr(detector, "roi_heads", None)
    return regions is not None and bool(regions.has_mask())


def _detector(weights: Path, imgsz: int | None) -> Exportable:
    model = Flat(torchvision.load_model(weights, imgsz)).eval()
    size = cast("Any", model.detector).architecture.imgsz
    return Exportable(
        model,
        sample=partial(pictures, size),
        outputs=model.keys,
        refused={"torch_export": _CHOSEN},
        traced_onnx=True,  # as torch.export does not follow it
        batch=1,
        detections=True,
    )


def _segmenter(weights: Path, imgsz: int | None) -> Exportable:
    model = unet.load_model(weights, imgsz).eval()
    assert model.architecture is not None, "load_model reads it"
    size = model.architecture.imgsz
    if size % model.stride:
        raise ConfigError(f"--imgsz: expected a multiple of {model.stride} pixels, but got {size}.")
    sizes = {0: ("batch", 1), 2: ("height", model.stride), 3: ("width", model.stride)}
    return Exportable(model, sample=partial(pictures, size), outputs=("logits",), sizes=sizes)


def _classifier(weights: Path, imgsz: int | None) -> Exportable:
    model = classifier_files.load_model(weights, imgsz).eval()
    sample = partial(pictures, model.architecture.imgsz)
    return Exportable(model, _of_one_size(sample), ("logits",), sizes={0: ("batch", 1)})


def _text_classifier(weights: Path, imgsz: int | None) -> Exportable:
    model = classifier_files.load_model(weights).eval()
    packed = model.architecture.name == "lstm"
    return Exportable(
        model,
        sample=partial(tokens, model.architecture.imgsz, model.architecture.vocabulary, PADDING),
        outputs=("logits",),
        input_name="ids",
        sizes={0: ("batch", 1)},
        refused={"torch_export": _PACKED} if packed else {},
        traced_onnx=packed,
    )


def _of_one_size(sample: Callable[..., Tensor]) -> Callable[[int, int], Tensor]:
    return lambda batch, times: sample(batch, 1)


_LOADERS: dict[str, Callable[[Path, int | None], Exportable]] = {
    "yolo": exportable_yolo,
    "torchvision": _detector,
    "unet": _segmenter,
    "classifier": _classifier,
    "text": _text_classifier,
}  # by the family of a checkpoint
