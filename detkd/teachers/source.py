"""What a cache is made from, and compared with when it is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from detkd.teachers.packing import Frame
from detkd.teachers.packing_classes import ClassFrame
from detkd.teachers.packing_pixels import PixelFrame
from detkd.teachers.store import Field, View
from detkd.types import ClassifierOutputs, DetectorOutputs, SegmenterOutputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from detkd.teachers.live import LiveTeacher
    from detkd.teachers.packing import Kept
    from detkd.teachers.pictures import Pictures
    from detkd.types import Outputs


@dataclass(frozen=True)
class Drawing:
    """How what a detector finds becomes pixels of a segmenter that learns from it.

    Attributes:
        draw: From its outputs, and height and width of the segmenter's input, to :attr:`DetectorOutputs.drawn`.
        classes: The classes that are drawn, as the detector calls them.
    """

    draw: Callable[[DetectorOutputs, tuple[int, int]], Tensor]
    classes: tuple[str, ...]


class Source:
    """A teacher, the pictures that it looks at, and what is kept of what it says of them.

    Args:
        live: The teacher.
        kept: What is kept.
        pictures: The views of a run.
        drawing: Where what a detector finds is kept drawn: how.

    Attributes:
        frame: What is the same for all pictures: a :class:`detkd.teachers.packing.Frame` of a detector, or a
            :class:`detkd.teachers.packing_pixels.PixelFrame` of a segmenter.
        fields: The tensors kept of a view.
    """

    def __init__(self, live: LiveTeacher, kept: Kept, pictures: Pictures, drawing: Drawing | None = None) -> None:
        self.live, self.kept, self.pictures, self._drawing = live, kept, pictures, drawing
        first = View(next(iter(pictures.counts)), 0, 0)
        outputs = next(self.outputs([first], 1))
        self.frame: Any = _frame_of(outputs)
        self.fields = {name: Field.of(tensor[0]) for name, tensor in self.pack(outputs).items()}

    def pack(self, outputs: Outputs, *, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors kept of a batch, [B, ...] each.

        Args:
            outputs: What the teacher said of it.
            like: Tensors of the same pictures packed before; the same parts are kept.
        """
        tensors: dict[str, Tensor] = self.frame.pack(outputs, self.kept, like=like)
        return tensors

    def outputs(self, views: Sequence[View], batch: int) -> Iterator[Outputs]:
        """What the teacher says of some views of one stage, computed where its model lies.

        Args:
            views: The views.
            batch: Pictures at a time.
        """
        device = next(self.live.adapter.model.parameters()).device
        self.live.attach()
        try:
            for images in self.pictures.load(views, batch):
                outputs = self.live.run(images.to(device))
                if self._drawing is not None and isinstance(outputs, DetectorOutputs):
                    drawn = self._drawing.draw(outputs, (images.shape[2], images.shape[3]))
                    outputs = replace(outputs, drawn=drawn)
                yield outputs
        finally:
            self.live.detach()

    def fingerprint(self) -> dict[str, Mapping[str, Any]]:
        """What all of it depends on."""
        teacher: dict[str, Any] = {
            "weights": _digest(self.live.adapter.model),
            "scale": self.live.scale,
            "precision": self.live.precision,
            **({"mirrored": True} if self.live.mirrored else {}),  # caches of others are older than it
        }
        kept: dict[str, Any] = {"anchors": self.kept.anchors}
        if self._drawing is not None:
            kept["classes"] = list(self._drawing.classes)
        return {**self.pictures.fingerprint(), "teacher": teacher, "kept": kept}


def _frame_of(outputs: Outputs) -> ClassFrame | Frame | PixelFrame:
    """What is the same for all pictures, of the outputs' kind."""
    if isinstance(outputs, ClassifierOutputs):
        return ClassFrame.of(outputs)
    return PixelFrame.of(outputs) if isinstance(outputs, SegmenterOutputs) else Frame.of(outputs)


def _digest(model: nn.Module) -> str:
    """A checksum of a model's architecture and weights, the same on every device."""
    checksum = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
