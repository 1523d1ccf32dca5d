"""Adapter of U-Nets: a network with an encoder, and a decoder of blocks, inside a segmenter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from detkd.adapters.hooked import Hooked
from detkd.errors import AdapterError
from detkd.hooks import Capture
from detkd.modes import evaluating
from detkd.types import SegmenterOutputs

if TYPE_CHECKING:
    from torch import Tensor

NETWORK, ENCODER = "network", "network.encoder"


def is_segmenter(model: nn.Module) -> bool:
    """Whether a model is a ``detkd.models.segmenter.Segmenter``, or follows its conventions."""
    return isinstance(getattr(model, NETWORK, None), nn.Module) and callable(getattr(model, "split", None))


class UNetAdapter(Hooked):
    """Watches a U-Net: the deepest map of its encoder, those behind its decoder's blocks, and its logits.

    The encoder returns maps of falling size, the deepest last; the decoder's ``blocks`` run from the deepest to the finest,
    each at half the stride of the one before. ``Unet`` of segmentation-models-pytorch is of this form, as is the plain one.
    The block at stride 1 is no level: no other model has one there.

    Args:
        model: A ``detkd.models.segmenter.Segmenter`` around such a network.

    Raises:
        AdapterError: If the model is none.
    """

    def __init__(self, model: nn.Module) -> None:
        network = getattr(model, NETWORK, None)
        blocks = getattr(getattr(network, "decoder", None), "blocks", None)
        if not is_segmenter(model) or not isinstance(blocks, nn.ModuleList) or not hasattr(network, "encoder"):
            raise AdapterError(
                f"Expected a Segmenter around a U-Net (a network with an `encoder`, and a `decoder` of `blocks`), but got "
                f"{type(model).__name__}. Write an adapter for it (`detkd.adapters.base.SegmenterAdapter`)."
            )
        self.model = cast("Any", model)
        self.class_names: tuple[str, ...] = self.model.class_names
        self.softmax: bool = self.model.softmax
        self.boundary: bool = self.model.boundary
        self._blocks = [f"{NETWORK}.decoder.blocks.{index}" for index in range(len(blocks))]
        self._capture = Capture(model, [NETWORK, ENCODER, *self._blocks])
        side = 2 * self.model.stride
        levels = self._probe(side)
        self.feature_channels = tuple(level.shape[1] for level in levels)
        self.strides = tuple(side // level.shape[3] for level in levels)

    def run(self, images: Tensor) -> None:
        """Run a forward pass on images [B, 3, H, W] in [0, 1]."""
        self._capture.clear()
        self.model(images)

    def take_outputs(self) -> SegmenterOutputs:
        """Return what the latest forward pass computed, and let go of it."""
        features, logits = self._levels(), self._capture.output(NETWORK)
        self._capture.clear()
        return SegmenterOutputs(features=features, heads=self.model.split(logits))

    def _levels(self) -> tuple[Tensor, ...]:
        """Maps of the latest pass at strides 2 to the deepest, which is the encoder's."""
        coarse_to_fine = [self._capture.output(ENCODER)[-1], *(self._capture.output(path) for path in self._blocks)]
        size = self._capture.inputs(NETWORK)[0].shape[2:]
        return tuple(level for level in reversed(coarse_to_fine) if level.shape[2:] != size)

    @torch.no_grad()
    def _probe(self, side: int) -> tuple[Tensor, ...]:
        """Levels of a black image, with every module left in the mode that it was in."""
        weight = next(self.model.parameters())
        with evaluating(self.model), self._capture:
            self.model(weight.new_zeros(1, 3, side, side))
            return self._levels()
