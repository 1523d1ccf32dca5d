"""A segmenter's outputs as the few float16 tensors that a cache keeps, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detkd.teachers.packing import half, unpack_maps
from detkd.types import PixelPredictions, SegmenterOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from detkd.teachers.packing import Kept


@dataclass(frozen=True)
class PixelFrame:
    """What is the same for every picture of a size; see :class:`detkd.teachers.packing.Frame`.

    Attributes:
        features: Channels, height and width of each level.
        softmax: Whether the channels of each head exclude each other.
    """

    features: tuple[torch.Size, ...]
    softmax: tuple[bool, ...]

    @classmethod
    def of(cls, outputs: SegmenterOutputs) -> PixelFrame:
        """The frame of any outputs for pictures of that size."""
        return cls(tuple(feature.shape[1:] for feature in outputs.features), tuple(head.softmax for head in outputs.heads))

    def to(self, device: torch.device) -> PixelFrame:
        """The frame on a device: it lies on none."""
        del device
        return self

    def pack(self, outputs: SegmenterOutputs, kept: Kept, *, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors to keep, [B, ...] of float16 each: logits in their full size, and feature maps.

        Args:
            outputs: Of one batch.
            kept: What to keep.
            like: Tensors of the same pictures packed before; of segmenters always the same ones are kept.
        """
        del like
        tensors = {f"features.{level}": outputs.features[level] for level in kept.levels}
        if kept.pixels:
            tensors |= {f"pixels.{number}": head.logits for number, head in enumerate(outputs.heads)}
        return {name: half(tensor) for name, tensor in tensors.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> SegmenterOutputs:
        """Outputs in float32 from what :meth:`pack` kept; no heads if their pixels were not kept."""
        values = {name: tensor.float() for name, tensor in tensors.items()}
        numbers = [number for number in range(len(self.softmax)) if f"pixels.{number}" in values]
        return SegmenterOutputs(
            features=unpack_maps("features", values, self.features, len(next(iter(values.values())))),
            heads=tuple(PixelPredictions(values[f"pixels.{number}"], self.softmax[number]) for number in numbers),
        )
