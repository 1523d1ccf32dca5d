"""Inputs that exported students are checked on: random ones, and pictures from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from detkd.data.augment import Augmentation
from detkd.data.pictures import read_picture

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

COARSE = 8  # side of the noise that random pictures are drawn from: plain noise has nothing for a detector to find


def pictures(imgsz: int, batch: int, times: int = 1) -> Tensor:
    """Random blots, RGB in [0, 1], [batch, 3, S, S] with S = times · imgsz."""
    return F.interpolate(torch.rand(batch, 3, COARSE, COARSE), size=(times * imgsz,) * 2, mode="bicubic").clamp(0, 1)


def tokens(length: int, vocabulary: int, padding: int, batch: int, times: int = 1) -> Tensor:
    """Random sentences of all lengths, token ids [batch, 1, 1, length]; `times` is of no meaning to them."""
    ids = torch.randint(padding + 1, vocabulary, (batch, 1, 1, length))
    ends = torch.linspace(length, max(1, length // 2), batch).long()
    return ids.masked_fill(torch.arange(length) >= ends[:, None, None, None], padding)


def read_square(path: Path, imgsz: int) -> Tensor:
    """A picture file as a student sees it: scaled to the square, and padded, [1, 3, S, S]."""
    seen = Augmentation([], imgsz)(read_picture(path), np.zeros((0, 4))).pixels
    return torch.from_numpy(seen.transpose(2, 0, 1)[None].copy()).float() / 255
