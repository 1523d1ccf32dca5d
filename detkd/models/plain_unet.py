"""A small U-Net that needs no library of encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CHANNELS = (16, 32, 64, 64, 64)  # of strides 1, 2, 4, 8 and 16; deep levels as wide as usual would hold most parameters


class PlainUNet(nn.Module):
    """Ronneberger's U-Net with batch normalisation, padding and bilinear upsampling, for compact students.

    At width 1 it has 0.49 million parameters, at 2 1.9 million, at 0.5 0.12 million.

    Args:
        outputs: Channels of its logits.
        width: Channels as a multiple of 16, 32, 64, 64 and 64 at strides 1 to 16.

    Source:
        Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, arXiv:1505.04597.
    """

    def __init__(self, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        channels = [max(1, round(count * width)) for count in CHANNELS]
        self.encoder = _Encoder(channels)
        self.decoder = _Decoder(channels)
        self.segmentation_head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K, H, W] of images [B, 3, H, W] whose sides are multiples of 16."""
        logits: Tensor = self.segmentation_head(self.decoder(self.encoder(images)))
        return logits


class _Encoder(nn.Module):
    """A map of each stride, finest first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_double(i, o) for i, o in zip((3, *channels), channels, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class _Decoder(nn.Module):
    """A block for each stride but the deepest, coarsest first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        pairs = list(zip(channels[1:], channels, strict=False))[::-1]
        self.blocks = nn.ModuleList(_Up(below, skip) for below, skip in pairs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x, *skips = reversed(features)
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x


class _Up(nn.Module):
    def __init__(self, below: int, skip: int) -> None:
        super().__init__()
        self.convolve = _double(below + skip, skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        mapped: Tensor = self.convolve(torch.cat([skip, x], 1))
        return mapped


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for count in (inputs, outputs):
        layers += [nn.Conv2d(count, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
