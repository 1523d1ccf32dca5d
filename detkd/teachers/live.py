"""A teacher that runs on the student's batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from detkd.adapters.base import ClassifierAdapter
from detkd.errors import AdapterError
from detkd.types import ClassifierOutputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from detkd.adapters.base import Adapter
    from detkd.types import Outputs

PrecisionName = Literal["float32", "bfloat16", "float16"]


class LiveTeacher:
    """A frozen model that sees what the student sees.

    Its convolutions work on channels-last memory, which saves a third of their time on a CPU and changes no value beyond
    rounding.

    Args:
        adapter: View of the model, which is frozen and set to evaluation mode here.
        scale: Side of the teacher's input as a multiple of the student's: a larger picture shows more detail.
        classes: Teacher's class for a student's class whose name differs, see :class:`detkd.pairing.Pairing`.
        precision: Type that its layers compute in (by autocast); None follows the student's training.
        mirrored: Whether it sees pictures mirrored, another view of them; its feature maps are mirrored back.
        compiled: Whether its forward pass is compiled by ``torch.compile``, hooks and all, when it first runs.

    Raises:
        AdapterError: If it would see something else than classified pictures mirrored: what a detector says of places
            would have to be mirrored back. If it is to be compiled, and its forward pass is not one graph of fixed shapes:
            torchvision's detectors, and classifiers of sentences.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        scale: float = 1.0,
        classes: Mapping[str, str] | None = None,
        precision: PrecisionName | None = None,
        mirrored: bool = False,
        compiled: bool = False,
    ) -> None:
        if mirrored and not (isinstance(adapter, ClassifierAdapter) and adapter.tokenizer is None):
            raise AdapterError(
                f"Expected a classifier of pictures as teacher that sees them `mirrored`, but "
                f"{type(adapter.model).__name__} is none. Leave it out."
            )
        adapter.model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.adapter = adapter
        self.scale = scale
        self.classes = classes
        self.precision = precision
        self.mirrored = mirrored
        self._run: Callable[[Tensor], None] = adapter.run
        if compiled:
            _check_compiles(adapter)
            self._run = torch.compile(adapter.run)

    def attach(self) -> None:
        """Install the hooks."""
        self.adapter.attach()

    def detach(self) -> None:
        """Remove the hooks."""
        self.adapter.detach()

    @torch.no_grad()
    def run(self, images: Tensor, views: Sequence[Any] | None = None) -> Outputs:
        """Run the model; see :class:`detkd.teachers.base.Teacher`."""
        images = scaled(images, self.scale)
        if self.mirrored:
            images = images.flip(-1)
        with self._autocast(images.device.type):
            self._run(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(images.device.type, enabled=False):  # boxes are decoded exactly
            outputs = self.adapter.take_outputs()
        if self.mirrored and isinstance(outputs, ClassifierOutputs):
            return replace(outputs, features=tuple(feature.flip(-1) for feature in outputs.features))
        return outputs

    def _autocast(self, device: str) -> AbstractContextManager[None]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device, dtype=getattr(torch, self.precision), enabled=self.precision != "float32")


def scaled(images: Tensor, scale: float) -> Tensor:
    """Pictures [B, 3, H, W] as a teacher of another size sees them, [B, 3, H · scale, W · scale]."""
    return images if scale == 1 else F.interpolate(images, scale_factor=scale, mode="bilinear", antialias=scale < 1)


def _check_compiles(adapter: Adapter) -> None:
    pictures = not isinstance(adapter, ClassifierAdapter) or adapter.tokenizer is None
    if not pictures or hasattr(adapter.model, "backbone"):  # which torchvision's detectors have
        raise AdapterError(
            f"Expected a YOLO, a U-Net or a classifier of pictures as teacher that is compiled, but got "
            f"{type(adapter.model).__name__}. Leave `compile` out."
        )
