"""A student as something to export: what it is called with, what may vary, and which formats it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

FormatName = Literal["onnx", "torchscript", "torch_export"]


@dataclass(frozen=True)
class Exportable:
    """A student of any family, in evaluation mode.

    Attributes:
        model: Called with one tensor, it returns a tensor or a tuple of tensors.
        sample: Makes an input of it: of a number of pictures or sentences, and of a side that is so many times its own.
        outputs: Names of its outputs.
        input_name: Name of its input.
        sizes: Of each dimension of the input that may vary, its name and what it is a multiple of.
        refused: Formats that it cannot have, each with the reason and what to take instead.
        writers: What writes a format better than :mod:`detkd.export.formats` does; called with the student, the path, an
            example of the input, and whether its sizes may vary.
        traced_onnx: Whether ONNX is made by tracing, because torch.export cannot follow the model.
        batch: Pictures or sentences at a time; None for any number.
        detections: Whether its outputs are boxes, labels, scores and perhaps masks of as many detections as it finds.
    """

    model: nn.Module
    sample: Callable[[int, int], Tensor]
    outputs: tuple[str, ...]
    input_name: str = "images"
    sizes: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    refused: Mapping[FormatName, str] = field(default_factory=dict)
    writers: Mapping[FormatName, Callable[[Exportable, Path, Tensor, bool], None]] = field(default_factory=dict)
    traced_onnx: bool = False
    batch: int | None = None
    detections: bool = False
