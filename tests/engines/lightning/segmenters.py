"""A tiny U-Net whose gradient on a batch is the mean of those on the batch's halves, as only in theory for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detkd.models.plain_unet import PlainUNet
from detkd.models.segmenter import Segmenter
from detkd.models.unet_architecture import UNetArchitecture
from detkd.types import PixelTargets

if TYPE_CHECKING:
    from collections.abc import Sequence


class MeanSegmenter(Segmenter):
    """A U-Net of discs without batch statistics, whose losses are means over pictures of equal weight."""

    def __init__(self, width: float) -> None:
        torch.manual_seed(round(100 * width))
        architecture = UNetArchitecture(name="unet", class_names=("disc",), imgsz=64, boundary=True, width=width)
        network = _without_statistics(PlainUNet(2, width))
        super().__init__(network, ("disc",), boundary=True, stride=16, architecture=architecture)

    def forward(self, images: Tensor | Sequence[Tensor], targets: PixelTargets | None = None) -> Any:
        """Logits; with labels the mean over the pictures of each loss, as Dice is not."""
        if targets is None:
            return super().forward(images)
        logits: Any = super().forward(images)
        pictures = zip(logits.split(1), targets.classes.split(1), _split(targets.boundary), strict=True)
        losses = [self._losses(own, PixelTargets(*labels)) for own, *labels in pictures]
        return {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}


def _split(boundary: Tensor | None) -> Sequence[Tensor]:
    assert boundary is not None
    return boundary.split(1)


def _without_statistics(network: nn.Module) -> nn.Module:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    return network
