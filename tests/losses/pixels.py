"""Logits, weights and labels of a few pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

HEIGHT, WIDTH = 5, 7


def pair(channels: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a student and a teacher for two images."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, 2, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return both[0] * 2, both[1] * 2


def weights() -> Tensor:
    """From 0 to 1."""
    return (torch.arange(2 * HEIGHT * WIDTH) % 5 / 4).view(2, HEIGHT, WIDTH)


def halves() -> Tensor:
    """Labels: the left three columns are background, the rest of class 0."""
    labels = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.long)
    labels[:, :, 3:] = 1
    return labels
